//! A plugin that is killed does not take with it the iptables it has started.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    iptables::config,
    site::{Site, mapping, tool},
};
use crate::kit::{PLUGIN, PLUGINS, Pod, start};

/// How long a DEL would take that does not wait.
const LONGER_THAN_A_DEL: Duration = Duration::from_millis(300);

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The process that a plugin has started and that has this file open.
fn child_with(plugin: &Child, file: &Path) -> Option<PathBuf> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", plugin.id())).ok()?;
    children.split_whitespace().map(|id| Path::new("/proc").join(id)).find(|process| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|path| path == file))
    })
}

#[test]
fn r1_9_del_waits_for_what_a_killed_add_has_started() {
    let (site, pod) = (Site::new(), Pod::new("web"));
    let netns = &site.node.netns;
    // The legacy program, whose lock the test can hold.
    tool(netns, "iptables-legacy -t nat -N KUBE-SERVICES");
    let lock_path = site.node.directory().join("xtables.lock");
    let lock = File::create(&lock_path).unwrap();
    lock.lock().unwrap();
    let (lock_name, netns_path) = (lock_path.display().to_string(), pod.path());
    let begin = |command: &str| {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_NETNS", &netns_path),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", PLUGINS),
            ("XTABLES_LOCKFILE", &lock_name),
        ];
        let config = config(&site.node, &json!([mapping(80, "tcp", "0.0.0.0")])).to_string();
        netns.run(|| start(Path::new(PLUGIN), &variables, config.as_bytes())).unwrap()
    };
    let mut add = begin("ADD");
    let orphan = wait_for("iptables that waits for its lock", || child_with(&add, &lock_path));
    add.kill().unwrap();
    add.wait().unwrap();
    let mut del = begin("DEL");
    thread::sleep(LONGER_THAN_A_DEL);
    assert!(del.try_wait().unwrap().is_none() && orphan.exists(), "it did not wait");
    lock.unlock().unwrap();
    assert!(del.wait().unwrap().success());
    let saved = tool(netns, "iptables-legacy-save");
    assert!(!saved.to_lowercase().contains("weft"), "{saved}");
}
