//! Bandwidth of pods that containerd made, by Kubernetes' annotations.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use weft_tests::{Request, secs};

use crate::{
    cri::PodSpec,
    fixture::{PORT, with_containerd},
};

#[test]
fn a_pod_gets_no_more_than_its_annotations_say_although_containerd_asks_for_a_huge_burst() -> Result<()> {
    with_containerd(|fixture| {
        let annotations = ["ingress", "egress"].map(|way| (format!("kubernetes.io/{way}-bandwidth"), "8M".to_owned()));
        let spec = PodSpec { annotations: HashMap::from(annotations), ..PodSpec::named("slow") };
        let (pod, _) = fixture.serving_pod(&spec)?;
        let far = fixture.cluster.node(2).pod("far")?;
        // One second's worth there, and back; all of it would pass at once in containerd's burst of 512 MB (section 9).
        let start = Instant::now();
        far.request(&Request::tcp(pod.socket(PORT)?).bytes(1_000_000).timeout(secs(60)))?.all_good()?;
        let took = start.elapsed();
        ensure!(took > Duration::from_millis(700), "1 MB at 8 Mbit/s took {took:?}");
        fixture.remove(&pod)?;
        fixture.nothing_left()
    })
}
