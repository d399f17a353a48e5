//! The plugin killed at random points: DEL, GC and the next ADD recover, and nothing leaks (R1.9).

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weft_netlink::RouteFilter;

use crate::{
    host_port::{assert_no_records, mapping, rules},
    kit::{Node, PLUGIN, PLUGINS, Pod, path_of, start},
};

/// Kills in all, over as many nodes as run side by side.
const KILLS: u64 = 200;
const NODES: u64 = 4;

/// When to kill.
#[derive(Clone, Copy)]
struct Moment {
    /// Count from the first address that is written down, not from the start.
    from_first_address: bool,
    after: Duration,
}

/// Runs a command and kills it. True if it had ended by itself by then.
fn run_and_kill(node: &Node, command: &str, pod: &Pod, config: &Value, moment: Moment) -> bool {
    let path = pod.path();
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_NETNS", &path),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", PLUGINS),
    ];
    let mut child = node.netns.run(|| start(Path::new(PLUGIN), &variables, config.to_string().as_bytes())).unwrap();
    while moment.from_first_address && node.reserved().is_empty() && child.try_wait().unwrap().is_none() {
        std::hint::spin_loop();
    }
    let since = Instant::now();
    // The scheduler's sleep is too coarse for a process that lives for two milliseconds.
    while since.elapsed() < moment.after {
        std::hint::spin_loop();
    }
    let ended = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    ended
}

/// How far a killed ADD had come.
fn progress(node: &Node) -> &'static str {
    let links = node.netlink().links().unwrap();
    let veth = links.iter().find(|link| link.name.starts_with("veth"));
    match (node.reserved().len(), veth) {
        (0, _) => "nothing done",
        (1, None) => "one of two addresses",
        (_, None) => "addresses",
        (_, Some(link)) if link.alias.is_none() => "veth without alias",
        (_, Some(link)) if !link.running => "veth down",
        _ if rules(&node.netns).contains("WEFT-HOSTPORTS") => "host ports by iptables",
        _ if rules(&node.netns).contains("weft-hostports") => "host ports by nftables",
        (..) => "veth up",
    }
}

fn assert_nothing_left(node: &Node) {
    assert!(node.reserved().is_empty(), "{:?}", node.reserved());
    // The kernel removes the interfaces of a namespace a while after its end.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !node.veths().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", node.veths());
        thread::yield_now();
    }
    let routes = node.netlink().routes(&RouteFilter::default()).unwrap();
    assert!(routes.is_empty(), "{routes:?}");
    // iptables leaves its empty tables.
    let rules = rules(&node.netns);
    assert!(!rules.to_lowercase().contains("weft"), "{rules}");
    assert_no_records(node);
}

/// What the pods have beside an interface with two addresses: nothing, host ports and a bandwidth, the same by iptables.
fn extras() -> [Value; 3] {
    let ports = [("tcp", 80), ("udp", 53)].map(|(protocol, port)| mapping(port, protocol, ""));
    let bandwidth = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
    let runtime_config = json!({"portMappings": ports, "bandwidth": bandwidth});
    [
        json!({}),
        json!({"runtimeConfig": runtime_config}),
        json!({"runtimeConfig": runtime_config, "backend": "iptables"}),
    ]
}

/// One kill and one way of recovery.
fn round(node: &Node, number: u64, config: &Value, moment: Moment) -> &'static str {
    let pod = Pod::new(&format!("pod{number}"));
    let deleted = |netns: &str| {
        let outcome = node.run("DEL", &pod, config, &[("CNI_NETNS", netns)]);
        assert!(outcome.success, "{outcome:?}");
    };
    if number % 4 == 3 {
        node.run("ADD", &pod, config, &[]).result();
        run_and_kill(node, "DEL", &pod, config, moment);
        deleted(&path_of(&pod.netns));
        assert_nothing_left(node);
        return "DEL";
    }
    let ended = run_and_kill(node, "ADD", &pod, config, moment);
    let progress = if ended { "all done" } else { progress(node) };
    match number % 4 {
        0 => deleted(&pod.path()),
        1 => deleted(""),
        _ => {
            let outcome = node.gc(&[]);
            assert!(outcome.success && node.reserved().is_empty(), "{outcome:?}");
        }
    }
    assert_nothing_left(node);
    // And the same sandbox can be added again.
    node.run("ADD", &pod, config, &[]).result();
    deleted(&pod.path());
    assert_nothing_left(node);
    progress
}

/// How long an ADD takes at least.
fn duration(node: &Node, config: &Value) -> Duration {
    let pod = Pod::new("measure");
    let measured = [(); 3].map(|()| {
        let begin = Instant::now();
        node.run("ADD", &pod, config, &[]).result();
        let took = begin.elapsed();
        assert!(node.run("DEL", &pod, config, &[]).success);
        took
    });
    measured.into_iter().min().unwrap()
}

#[test]
fn r1_9_killed_at_random_points() {
    let seen = Mutex::new(BTreeMap::<&str, u32>::new());
    thread::scope(|scope| {
        for worker in 0..NODES {
            let seen = &seen;
            scope.spawn(move || {
                let (node, mut random) = (Node::dual_stack(), fastrand::Rng::with_seed(worker));
                let kinds = extras().map(|extras| {
                    let config = node.config_with("1.0.0", extras);
                    (duration(&node, &config), config)
                });
                for number in 0..KILLS / NODES {
                    let (longest, config) = &kinds[(number / 4) as usize % kinds.len()];
                    // The part with the addresses is short: kills at random times alone would hardly ever meet it.
                    let from_first_address = number % 8 < 3;
                    let range = if from_first_address { *longest / 4 } else { *longest };
                    let moment = Moment { from_first_address, after: range.mul_f64(random.f64()) };
                    let progress = round(&node, number, config, moment);
                    *seen.lock().unwrap().entry(progress).or_default() += 1;
                }
                let ledger = node.directory().join("networks/.hostports-iptables");
                assert_eq!(std::fs::read_to_string(ledger).unwrap(), "", "it says that there are rules");
                assert_eq!(node.store_files(), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    eprintln!("killed ADDs had come to: {seen:?}");
    assert!(seen.len() >= 4, "the kills do not hit different points: {seen:?}");
}
