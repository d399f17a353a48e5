use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use weft_proxy::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections},
    ebpf::MapSizes,
    plan::{PacketSettings, PlanKey, PlannerConfig},
};

use super::*;
use crate::config::{NodePortAddresses, ProxyMode};

/// Writes down what it is asked to do, and may be told to fail.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Changed>>>, Arc<AtomicBool>);

impl DataPlane for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn apply(&mut self, _: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        self.0.lock().unwrap().push(changed.clone());
        match self.1.load(Ordering::Relaxed) {
            true => Err(DataPlaneError { plane: "recorder", doing: "test".to_owned(), source: "told to fail".into() }),
            false => Ok(()),
        }
    }

    fn connections(&self, _: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        Ok(Vec::new())
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

fn config() -> ProxyConfig {
    ProxyConfig {
        mode: ProxyMode::Nftables,
        node_port_addresses: NodePortAddresses::default(),
        packets: PacketSettings::default(),
        local_traffic_of_node: false,
        conntrack: Default::default(),
        take_over_kube_proxy: false,
        second_line: true,
        map_sizes: MapSizes::default(),
        cgroup_root: None,
        bpffs: "/nowhere".into(),
    }
}

/// The thread with this data plane, on a node with one address.
fn started(recorder: &Recorder) -> Handle {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let plane = recorder.clone();
    let parts = Parts {
        planner: Planner::new(PlannerConfig::new("n1")),
        data_planes: Chosen {
            planes: vec![Box::new(recorder.clone())],
            packets: Box::new(move |_| Box::new(plane.clone())),
            retire: Box::new(|| {}),
            cgroup_root: None,
        },
        health_checks: health_checks::start("n1".to_owned(), Arc::clone(&health), Box::new(|_| {})),
        health,
        metrics: Arc::default(),
        late: Box::new(|_| {}),
        conntrack: Vec::new(),
    };
    let handle = start(&config(), parts).unwrap();
    assert!(handle.node_addresses(BTreeSet::from([[192, 0, 2, 1].into()])));
    handle
}

#[tokio::test]
async fn rule_1_7_nothing_is_written_before_every_kind_was_listed() {
    let recorder = Recorder::default();
    let handle = started(&recorder);
    let applied = || recorder.0.lock().unwrap().clone();
    for kind in [ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node] {
        let before = handle.report().await.unwrap();
        assert!(!before.source_synced && !before.proxy.synced && applied().is_empty(), "{kind}: {before:?}");
        assert!(handle.source_event(SourceEvent::Replace(kind, Vec::new())));
    }
    let after = handle.report().await.unwrap();
    assert!(after.source_synced && after.proxy.synced, "{after:?}");
    assert_eq!(applied(), [Changed::Everything]);
}

#[tokio::test]
async fn what_failed_is_no_sync() {
    let recorder = Recorder::default();
    recorder.1.store(true, Ordering::Relaxed);
    let handle = started(&recorder);
    for kind in [ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node] {
        assert!(handle.source_event(SourceEvent::Replace(kind, Vec::new())));
    }
    let failed = handle.report().await.unwrap().proxy;
    assert!(failed.last_sync.is_none() && failed.last_error.is_some() && !failed.synced, "{failed:?}");
    recorder.1.store(false, Ordering::Relaxed);
    while !handle.report().await.unwrap().proxy.synced {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(handle.report().await.unwrap().proxy.last_sync.is_some());
}
