use std::{net::Ipv6Addr, sync::Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn name(service: &str) -> ServiceName {
    ServiceName::new("ns1", service)
}

/// One Service at 127.0.0.1, or 127.0.0.1 and ::1.
fn served(service: &str, port: u16, counts: &[(IpFamily, usize)]) -> Served {
    let check = HealthCheck { service: name(service), port, local_ready_endpoints: counts.iter().copied().collect() };
    let addresses =
        [(IpFamily::V4, vec![[127, 0, 0, 1].into()]), (IpFamily::V6, vec![IpAddr::from(Ipv6Addr::LOCALHOST)])];
    Served { checks: [(check.service.clone(), check)].into(), addresses: addresses.into() }
}

/// A port that is free in both families.
fn free_port() -> u16 {
    let port = |at: SocketAddr| listen(at).and_then(|listener| listener.local_addr()).map(|at| at.port());
    port("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn until(publisher: &mut Publisher, is: impl Fn(&[HealthCheckStatus]) -> bool) {
    let waited = time::timeout(Duration::from_secs(10), publisher.status.wait_for(|status| is(status))).await;
    waited.expect("in time").expect("the listeners run");
}

/// The answer without its date, which every response has.
async fn ask(at: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(at).await?;
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn rule_11_3_each_family_counts_its_own_endpoints() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let mut publisher = start("n1".to_owned(), Arc::clone(&health), Box::new(|_| {}));
    let port = free_port();
    publisher.publish(served("svc1", port, &[(IpFamily::V4, 2), (IpFamily::V6, 0)]));
    until(&mut publisher, |status| status.first().is_some_and(|status| status.listening.len() == 2)).await;
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    let expected = "HTTP/1.1 200 OK\ncontent-type: application/json\nx-content-type-options: nosniff\n\
                    x-load-balancing-endpoint-weight: 2\ncontent-length: 111\nconnection: close\n\n{\n\t\"service\": {\n\t\t\"namespace\": \"ns1\",\n\
                    \t\t\"name\": \"svc1\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    for request in ["GET /", "POST /any/path?at=all", "DELETE /healthz"] {
        assert_eq!(ask(v4, request).await.unwrap(), expected, "{request}");
    }
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    let answer = ask(v6, "GET /").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-load-balancing-endpoint-weight: 0"), "{answer}");

    // A new count without a new listener; then no Service, no listener.
    publisher.publish(served("svc1", port, &[(IpFamily::V4, 0), (IpFamily::V6, 1)]));
    assert!(ask(v4, "GET /").await.unwrap().starts_with("HTTP/1.1 503 "));
    publisher.publish(Served::default());
    until(&mut publisher, <[_]>::is_empty).await;
    let closed = async {
        while ask(v4, "GET /").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(Duration::from_secs(10), closed).await.expect("the port is closed");
}

#[tokio::test]
async fn rule_11_3_a_port_in_use_is_told_once_and_the_others_are_served() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&told);
    let on_failure: OnFailure = Box::new(move |failure| note.lock().unwrap().push(failure.message.clone()));
    let mut publisher = start("n1".to_owned(), Arc::new(Health::new(Duration::from_secs(60))), on_failure);
    let (taken, free) = (free_port(), free_port());
    let holder = listen(SocketAddr::from(([127, 0, 0, 1], taken))).unwrap();
    let mut both = served("a", taken, &[(IpFamily::V4, 1)]);
    both.checks.extend(served("b", free, &[(IpFamily::V4, 1)]).checks);
    publisher.publish(both.clone());
    until(&mut publisher, |status| status.len() == 2).await;
    let status = publisher.status();
    assert!(status[0].error.as_ref().is_some_and(|error| error.contains("in use")), "{status:?}");
    assert_eq!((status[1].listening.len(), &status[1].error), (1, &None));
    assert!(ask(SocketAddr::from(([127, 0, 0, 1], free)), "GET /").await.unwrap().starts_with("HTTP/1.1 200 "));
    let start = format!("node n1 failed to start healthcheck \"ns1/a\" on port {taken}: ");
    {
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].starts_with(&start), "{told:?}");
    }

    // Another change is another try.
    drop(holder);
    both.checks.remove(&name("b"));
    publisher.publish(both);
    until(&mut publisher, |status| status.len() == 1 && status[0].error.is_none()).await;
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_port_goes_from_one_service_to_another_without_a_failure() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let note = Box::new(move |failure: &ListenFailure| told.lock().unwrap().push(failure.clone()));
    let mut publisher = start("n1".to_owned(), health, note);
    let port = free_port();
    for service in ["svc1", "svc2", "svc1"] {
        publisher.publish(served(service, port, &[(IpFamily::V4, 1), (IpFamily::V6, 1)]));
        let is = |status: &HealthCheckStatus| status.service.ends_with(service) && status.listening.len() == 2;
        until(&mut publisher, |status| status.first().is_some_and(is)).await;
    }
    assert_eq!(*failures.lock().unwrap(), []);
}
