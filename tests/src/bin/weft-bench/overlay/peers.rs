//! A thousand peers: how long the kernel takes to have them all, and to have one that changed. Seen from outside the agent,
//! by the kernel's notices.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use weft_netlink::{Event, Group, Monitor, Netns, Stopper};
use weft_tests::{Node, Place, secs};

use super::agent::{Leases, Overlay};

/// How many.
pub(crate) const PEERS: usize = 1000;
/// Changes of one peer that are timed.
const CHANGES: usize = 50;
/// Room for the peers of other nodes, and a subnet for its own.
const LARGE: &str = r#"{"Network":"10.0.0.0/8","SubnetMin":"10.200.0.0","Backend":{"Type":"vxlan"}}"#;

/// What a thousand peers cost.
pub(crate) struct Cost {
    pub(crate) rss_mb: f64,
    /// From the start of the process.
    pub(crate) ready: Duration,
    /// From the first entry of a peer to the last.
    pub(crate) programmed: Duration,
    /// From the change of a lease to the entry in the kernel.
    pub(crate) changes: Vec<Duration>,
}

/// Starts an agent among a thousand peers, and changes some of them.
pub(crate) fn measure(node: &Node, directory: &Path) -> Result<Cost> {
    let leases = directory.join("leases");
    let subnets = leases.join("subnets");
    fs::create_dir_all(&subnets)?;
    for number in 0..PEERS {
        write(&subnets, number, number)?;
    }
    let notices = Notices::of(node)?;
    let overlay = Overlay::start(node, LARGE, &Leases::Dir(leases), directory)?;
    let [first, last] = notices.until_all_routes(PEERS)?;
    let changes = (0..CHANGES).map(|change| notices.one_change(&subnets, change * 17)).collect::<Result<_>>()?;
    Ok(Cost { rss_mb: overlay.rss_mb()?, ready: overlay.ready, programmed: last - first, changes })
}

/// The lease of a peer, with the public address of host `host`; in one step, as the agent reads it at once.
fn write(subnets: &Path, number: usize, host: usize) -> Result<()> {
    let (a, b) = (number / 250, number % 250);
    let value = format!(
        r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{a:02x}:{b:02x}"}}}}"#,
        public_address(host)
    );
    let new: PathBuf = subnets.join(".new");
    fs::write(&new, value)?;
    fs::rename(new, subnets.join(format!("10.{}.{b}.0-24", 1 + a)))?;
    Ok(())
}

fn public_address(host: usize) -> IpAddr {
    let [.., high, low] = host.to_be_bytes();
    [172, 31, high, low].into()
}

/// The kernel's notices of a node, with the moment each came.
pub(crate) struct Notices {
    events: Receiver<(Instant, Event)>,
    stopper: Stopper,
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl Notices {
    pub(crate) fn of(node: &Place) -> Result<Self> {
        let monitor = Netns::open(node.netns())?.run(|| Monitor::open(&[Group::Ipv4Route, Group::Neighbour]))??;
        let stopper = monitor.stopper();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(batch) = monitor.wait()
                && !batch.is_empty()
            {
                let now = Instant::now();
                // The other end is gone: nobody wants to know any more.
                let heard = batch.into_iter().all(|event| sender.send((now, event)).is_ok());
                if !heard {
                    return;
                }
            }
        });
        Ok(Self { events, stopper })
    }

    fn next(&self) -> Result<(Instant, Event)> {
        self.events.recv_timeout(secs(10)).context("the kernel told nothing for 10 s")
    }

    /// When the first entry of a peer came, and when the last route, which is what each peer gets last.
    pub(crate) fn until_all_routes(&self, peers: usize) -> Result<[Instant; 2]> {
        let mut first = None;
        let mut routes = 0;
        loop {
            let (time, event) = self.next()?;
            match event {
                Event::FdbChanged(_) => _ = first.get_or_insert(time),
                Event::RouteChanged(route) if route.onlink => routes += 1,
                _ => {}
            }
            if let Some(first) = first.filter(|_| routes >= peers) {
                return Ok([first, time]);
            }
        }
    }

    /// From the rename that publishes another address of a peer to its FDB entry.
    fn one_change(&self, subnets: &Path, number: usize) -> Result<Duration> {
        while self.events.try_recv().is_ok() {}
        let host = 10_000 + number;
        let begin = Instant::now();
        write(subnets, number % PEERS, host)?;
        loop {
            let (time, event) = self.next()?;
            if matches!(event, Event::FdbChanged(entry) if entry.dst == public_address(host)) {
                return Ok(time - begin);
            }
        }
    }
}
