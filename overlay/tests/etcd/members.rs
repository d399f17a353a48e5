//! etcd as clusters have it, with three members: the leader is lost, is frozen, and then two of three are.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;
use weft_overlay::{EtcdConfig, EtcdLeases, LeaseManager};

use crate::{NETWORK, outage::fewest, request, server::in_netns, until};

const MEMBERS: usize = 3;

/// Three members on loopback; killed when dropped.
struct Members {
    directory: TempDir,
    running: BTreeMap<usize, Child>,
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn url(member: usize) -> String {
    format!("http://127.0.0.1:{}", 23_790 + member)
}

fn peer_url(member: usize) -> String {
    format!("http://127.0.0.1:{}", 23_800 + member)
}

impl Members {
    async fn start() -> Self {
        let directory = TempDir::with_prefix_in("weft-etcd-", "/dev/shm").unwrap();
        let mut members = Self { directory, running: BTreeMap::new() };
        (0..MEMBERS).for_each(|member| members.spawn(member));
        members.leader().await;
        members
    }

    fn spawn(&mut self, member: usize) {
        let cluster: Vec<String> = (0..MEMBERS).map(|member| format!("m{member}={}", peer_url(member))).collect();
        let name = format!("m{member}");
        let data = self.directory.path().join(&name).display().to_string();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--name", &name, "--data-dir", &data]);
        command.args(["--listen-client-urls", &url(member), "--advertise-client-urls", &url(member)]);
        command.args(["--listen-peer-urls", &peer_url(member), "--initial-advertise-peer-urls", &peer_url(member)]);
        command.args(["--initial-cluster", &cluster.join(","), "--logger", "zap", "--log-level", "panic"]);
        // Elections within a second, also on a busy machine.
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running.insert(member, child);
    }

    fn kill(&mut self, member: usize) {
        let mut child = self.running.remove(&member).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, member: usize, signal: &str) {
        let pid = self.running[&member].id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits until there is one; its number.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            for member in self.running.keys() {
                if is_leader(*member).await {
                    return *member;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As nodes know them.
    fn leases(&self) -> EtcdLeases {
        EtcdLeases::new(EtcdConfig {
            endpoints: (0..MEMBERS).map(url).collect(),
            prefix: "/coreos.com/network".into(),
            ca_file: None,
            client_certificate: None,
            user: None,
            renew_margin: Duration::from_secs(3600),
        })
    }
}

async fn is_leader(member: usize) -> bool {
    let ask = async {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_millis(300));
        let status = Client::connect([url(member)], Some(options)).await?.status().await?;
        Ok::<_, etcd_client::Error>(
            status.leader() != 0 && status.header().map(|h| h.member_id()) == Some(status.leader()),
        )
    };
    // A frozen one does not answer.
    matches!(tokio::time::timeout(Duration::from_millis(500), ask).await, Ok(Ok(true)))
}

/// Does what it takes as long as it takes: elections refuse some requests.
async fn acquire(leases: &EtcdLeases, number: u8) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = leases.acquire(&request(number, NETWORK)).await {
        assert!(Instant::now() < deadline, "node {number}: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_lost_a_frozen_and_no_leader_take_no_peer_away() {
    in_netns(async || {
        let mut members = Members::start().await;
        let node = members.leases();
        acquire(&node, 1).await;
        acquire(&members.leases(), 2).await;
        let mut snapshots = node.watch().await.unwrap();
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 2).await;
        let fewest = fewest(snapshots.clone());

        // The leader dies: another is elected, and everything goes on.
        let leader = members.leader().await;
        members.kill(leader);
        acquire(&members.leases(), 3).await;
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 3).await;
        members.spawn(leader);

        // It is frozen, which looks like a slow one: connections stay, answers do not come.
        let leader = members.leader().await;
        members.signal(leader, "STOP");
        acquire(&members.leases(), 4).await;
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 4).await;
        members.signal(leader, "CONT");

        // Two of three are gone: nothing can be written, and nobody's peers go.
        let leader = members.leader().await;
        let others: Vec<usize> = (0..MEMBERS).filter(|member| *member != leader).collect();
        others.iter().for_each(|member| members.kill(*member));
        let error = node.acquire(&request(1, NETWORK)).await.unwrap_err();
        assert!(error.to_string().contains("etcd"), "{error}");
        others.iter().for_each(|member| members.spawn(*member));
        acquire(&members.leases(), 5).await;
        acquire(&node, 1).await;
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 5).await;
        assert_eq!(fewest.load(Ordering::Relaxed), 2, "no snapshot was short of a lease");
    });
}
