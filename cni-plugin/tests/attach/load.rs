//! Many at once (section 11): no address is given twice, and nothing is left behind.

use std::{
    collections::BTreeSet,
    sync::{Barrier, Mutex},
    thread,
};

use serde_json::{Value, json};
use weft_netlink::RouteFilter;

use crate::{
    host_port::{assert_no_records, mapping, rules},
    kit::{Node, Pod, addresses},
};

/// Workers, and pods each makes and removes. All together take six seconds, most of it the kernel's removal of veths.
const WORKERS: usize = 8;
const ROUNDS: usize = 100;

/// At once.
const CROWD: usize = 50;

/// Addresses in use, by what the results say.
#[derive(Default)]
struct InUse(Mutex<BTreeSet<String>>);

impl InUse {
    fn take(&self, addresses: &[String]) {
        for address in addresses {
            assert!(self.0.lock().unwrap().insert(address.clone()), "{address} was given twice");
        }
    }

    fn give_back(&self, addresses: &[String]) {
        self.0.lock().unwrap().retain(|address| !addresses.contains(address));
    }
}

/// A configuration with a host port of its own and a bandwidth.
fn with_extras(node: &Node, port: usize) -> Value {
    let port = mapping(u16::try_from(port).unwrap(), "tcp", "");
    let bandwidth = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
    node.config_with("1.0.0", json!({"runtimeConfig": {"portMappings": [port], "bandwidth": bandwidth}}))
}

fn assert_nothing_left(node: &Node) {
    assert!(node.veths().is_empty(), "{:?}", node.veths());
    let routes = node.netlink().routes(&RouteFilter::default()).unwrap();
    assert!(routes.is_empty(), "{routes:?}");
    assert_eq!(rules(&node.netns), "");
    assert_no_records(node);
    assert_eq!(node.store_files(), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
}

#[test]
fn section_11_eight_at_a_time() {
    let (node, in_use) = (Node::dual_stack(), InUse::default());
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (node, in_use) = (&node, &in_use);
            scope.spawn(move || {
                let mut pod = Pod::new("");
                for round in 0..ROUNDS {
                    pod.id = format!("pod-{worker}-{round}");
                    // Every fourth with host port and bandwidth.
                    let extras = round % 4 == 0;
                    let config = if extras { with_extras(node, 1000 + worker) } else { node.config("1.0.0") };
                    let given = addresses(&node.run("ADD", &pod, &config, &[]).result());
                    in_use.take(&given);
                    in_use.give_back(&given);
                    let outcome = node.del(&pod);
                    assert!(outcome.success, "{outcome:?}");
                }
            });
        }
    });
    assert_nothing_left(&node);
}

#[test]
fn section_11_fifty_at_once() {
    let (node, in_use, start) = (Node::dual_stack(), InUse::default(), Barrier::new(CROWD));
    let pods: Vec<_> = (0..CROWD).map(|n| Pod::new(&format!("pod-{n}"))).collect();
    let together = |work: &(dyn Fn(&Pod) + Sync)| {
        thread::scope(|scope| {
            for pod in &pods {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    work(pod);
                });
            }
        });
    };
    together(&|pod| {
        let config = with_extras(&node, 1000 + pod.id["pod-".len()..].parse::<usize>().unwrap());
        in_use.take(&addresses(&node.run("ADD", pod, &config, &[]).result()));
    });
    assert_eq!((node.veths().len(), node.reserved().len()), (CROWD, 2 * CROWD));
    together(&|pod| {
        let outcome = node.del(pod);
        assert!(outcome.success, "{outcome:?}");
    });
    assert_nothing_left(&node);
}
