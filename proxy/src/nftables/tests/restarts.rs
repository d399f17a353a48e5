//! What is in the kernel when the data plane starts, or when somebody else changed it.

use super::*;

/// A Service port with a NodePort, and a ClusterIP that only the second line serves.
fn with_cluster_ip(number: u8) -> ServicePortPlan {
    let mut plan = plan(key(&format!("web-{number}")), endpoints(&[&format!("10.244.1.{number}:80")]));
    plan.frontends =
        vec![Frontend::ClusterIp(([10, 96, 0, number], 80).into()), Frontend::NodePort(30000 + u16::from(number))];
    plan
}

#[test]
fn the_second_line_comes_later_and_stays_over_a_restart() {
    const SECOND_LINE: PacketScope = PacketScope::External { second_line: true };
    let mut bench = Bench::new(SECOND_LINE);
    let mut direct = Bench::new(SECOND_LINE);
    direct.apply(&Changed::Everything);
    for number in 1..=200 {
        let plan = with_cluster_ip(number);
        bench.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        direct.put(plan);
    }
    bench.apply(&Changed::Everything);
    assert!(!bench.nft.dump().contains("10.96.0.7 . 6 . 80"), "not at first");
    assert!(bench.nft.dump().contains("6 . 30007"), "what cannot wait is there");
    // A Service that changes meanwhile gets it with the change, and one that goes needs none.
    let mut changed = with_cluster_ip(7);
    changed.internal = endpoints(&["10.244.1.7:80", "10.244.1.77:80"]);
    for bench in [&mut bench, &mut direct] {
        bench.put(changed.clone());
        bench.change(&[(key("web-8"), None)]);
    }
    assert!(bench.nft.dump().contains("10.96.0.7 . 6 . 80"));
    let mut rounds = 0;
    while bench.plane.catch_up(&bench.desired).unwrap() {
        rounds += 1;
        bench.nft.check_references().unwrap();
    }
    assert_eq!(rounds, 2, "198 of 128 at a time");
    assert!(bench.plane.is_intact().unwrap());
    assert_eq!(bench.nft.dump(), direct.nft.dump(), "as if it had been there from the start");

    bench.nft.take_scripts();
    bench.plane = started(SECOND_LINE, &bench.nft);
    bench.apply(&Changed::Everything);
    assert_eq!(bench.nft.take_scripts(), [""; 0], "a restart takes nothing out and has nothing to add");
    assert!(!bench.plane.catch_up(&bench.desired).unwrap());
}

#[test]
fn a_restart_changes_nothing() {
    let mut bench = with_web(&TWO);
    bench.put({
        let mut plan = web(&TWO);
        plan.key = key("another");
        plan.frontends = vec![Frontend::NodePort(30081)];
        plan
    });
    // "web" is in bucket 0 although "another" sorts before it: only by looking can the new process know.
    bench.nft.take_scripts();
    bench.plane = started(EXTERNAL, &bench.nft);
    bench.apply(&Changed::Everything);
    assert!(bench.nft.take_scripts().is_empty());
    assert!(bench.plane.is_intact().unwrap());
}

#[test]
fn a_deleted_table_is_noticed_and_built_again() {
    let mut bench = with_web(&TWO);
    assert!(bench.plane.is_intact().unwrap());
    let before = bench.nft.dump();
    bench.nft.delete_table();
    assert!(!bench.plane.is_intact().unwrap());
    bench.nft.take_scripts();
    bench.apply(&Changed::Everything);
    let scripts = bench.nft.take_scripts();
    assert_eq!(scripts.len(), 2, "chains, then elements");
    assert_eq!(bench.nft.dump(), before);
}

#[test]
fn after_an_error_the_kernel_is_read_again() {
    let mut bench = with_web(&TWO);
    bench.nft.fail_after(0);
    bench.desired.ports.insert(key("web"), Arc::new(web(&THREE)));
    bench.plane.apply(&bench.desired, &Changed::Ports(vec![key("web")])).unwrap_err();
    // Even for a caller that forgets to say Everything.
    bench.apply(&Changed::Ports(Vec::new()));
    assert!(bench.nft.dump().contains("count: 3"));
}

/// The table that each transaction since the last call is about, and what it begins with.
fn steps(nft: &FakeNft) -> Vec<String> {
    let step = |script: &String| script.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
    nft.take_scripts().iter().map(step).collect()
}

#[test]
fn a_table_of_another_layout_is_built_anew_while_a_stand_in_serves() {
    let mut bench = with_web(&TWO);
    let before = bench.nft.dump();
    bench.nft.change_layout();
    bench.plane = started(EXTERNAL, &bench.nft);
    bench.nft.take_scripts();
    bench.apply(&Changed::Everything);
    let expected = [
        "add table inet weft-proxy-stand-in",
        "add element inet weft-proxy-stand-in",
        "add table inet weft-proxy",
        "add element inet weft-proxy",
        "add table inet weft-proxy-stand-in",
    ];
    assert_eq!(steps(&bench.nft), expected, "the last one removes it");
    assert_eq!(bench.nft.dump(), before);
    assert!(!bench.nft.observe().unwrap().stand_in);
}

#[test]
fn a_stand_in_that_a_killed_agent_left_goes_once_the_table_is_complete() {
    let mut bench = with_web(&TWO);
    let before = bench.nft.dump();
    bench.nft.change_layout();
    bench.plane = started(EXTERNAL, &bench.nft);
    // It gets as far as the elements of the stand-in.
    bench.nft.fail_after(2);
    bench.plane.apply(&bench.desired, &Changed::Everything).unwrap_err();
    assert!(bench.nft.observe().unwrap().stand_in);
    // ... or as far as the chains of the table.
    bench.nft.fail_after(3);
    bench.plane.apply(&bench.desired, &Changed::Everything).unwrap_err();
    bench.nft.take_scripts();
    bench.plane = started(EXTERNAL, &bench.nft);
    bench.apply(&Changed::Everything);
    let steps = steps(&bench.nft);
    assert_eq!(steps, ["add element inet weft-proxy", "add table inet weft-proxy-stand-in"], "no need of another");
    assert_eq!(bench.nft.dump(), before);
    assert!(!bench.nft.observe().unwrap().stand_in);
}
