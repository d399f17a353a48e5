//! Follows the configuration files: what can change at run time does, for the rest a restart is asked for. A file with
//! mistakes changes nothing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::{Config, Effect, NodePortAddresses, fields::field};
use crate::{cli::AgentArgs, status::ConfigStatus};

/// Writers are given this time to finish.
const SETTLE: Duration = Duration::from_millis(200);
/// But no longer: other files of the directory may change all the time.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);
/// How often files are read although nothing was reported: some file systems have no events.
const FULL_READ: Duration = Duration::from_secs(60);

/// What takes a change at run time, and tells of it.
pub(crate) struct Live {
    /// The new time after which a waiting update makes the node unhealthy.
    pub(crate) late_after: Box<dyn Fn(Duration) + Send>,
    /// The new addresses NodePorts are accepted at.
    pub(crate) node_port_addresses: Box<dyn Fn(NodePortAddresses) + Send>,
    /// The new log filter.
    pub(crate) log_filter: Box<dyn Fn(&'static str) + Send>,
    /// A restart is needed for these fields, which is worth an event.
    pub(crate) restart_needed: OnRestartNeeded,
}

/// Is told the fields.
pub(crate) type OnRestartNeeded = Box<dyn Fn(&[String]) + Send>;

/// Starts following the files the configuration was read from, on a thread of its own.
///
/// Both values are kept up to date: what is in force, and what an operator should know.
pub(crate) fn follow(
    args: AgentArgs,
    config: Config,
    live: Live,
    in_force: watch::Sender<super::Settings>,
    status: watch::Sender<ConfigStatus>,
) -> std::io::Result<()> {
    let files = files(&args, &config);
    status.send_modify(|status| status.files = files.iter().map(|path| path.display().to_string()).collect());
    if files.is_empty() {
        return Ok(());
    }
    let follower = Follower { args, files, config, live, in_force, status };
    thread::Builder::new().name("config".to_owned()).spawn(move || follower.run())?;
    Ok(())
}

fn files(args: &AgentArgs, config: &Config) -> Vec<PathBuf> {
    let net_conf = config.overlay.as_ref().and_then(|overlay| {
        let default = Path::new(super::overlay::NET_CONF);
        overlay.net_conf.as_ref().map(|_| args.overlay.net_conf.as_deref().unwrap_or(default))
    });
    args.proxy.kube_proxy_config.as_deref().into_iter().chain(net_conf).map(Path::to_owned).collect()
}

struct Follower {
    args: AgentArgs,
    files: Vec<PathBuf>,
    config: Config,
    live: Live,
    in_force: watch::Sender<super::Settings>,
    status: watch::Sender<ConfigStatus>,
}

impl Follower {
    fn run(mut self) {
        let (_watcher, events) = watch(&self.files);
        let mut last = self.content();
        loop {
            match events.recv_timeout(FULL_READ) {
                Ok(()) => {
                    let first = Instant::now();
                    while first.elapsed() < LONGEST_SETTLE && events.recv_timeout(SETTLE).is_ok() {}
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(FULL_READ),
            }
            let now = self.content();
            if now != last {
                last = now;
                self.take();
            }
        }
    }

    fn content(&self) -> Vec<Option<Vec<u8>>> {
        self.files.iter().map(|path| std::fs::read(path).ok()).collect()
    }

    fn take(&mut self) {
        let new = match Config::load(&self.args) {
            Ok(new) => new,
            Err(mistakes) => {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                error!(
                    mistakes = mistakes.join("; "),
                    "the changed configuration is wrong; the old one stays in force"
                );
                self.status.send_modify(|status| status.mistakes = mistakes);
                return;
            }
        };
        for notice in new.notices.iter().filter(|notice| !self.config.notices.contains(notice)) {
            warn!("{notice}");
        }
        let changed = self.apply(&new);
        let restart = restart_needed(&self.config, &new);
        if !changed.is_empty() {
            info!(fields = changed.join(", "), "the configuration changed; this is in force now");
        }
        if !restart.is_empty() {
            warn!(fields = restart.join(", "), "the configuration changed; restart the agent for this to take effect");
            (self.live.restart_needed)(&restart);
        }
        if changed.is_empty() && restart.is_empty() {
            debug!("the configuration files changed, but say the same");
        }
        self.status.send_modify(|status| {
            status.mistakes.clear();
            status.restart_needed = restart;
        });
    }

    /// Puts into force what can be; returns the fields.
    fn apply(&mut self, new: &Config) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for path in self.config.settings.differences(&new.settings) {
            if !is_live(path, &self.config, new) {
                continue;
            }
            match path {
                "logging.verbosity" => (self.live.log_filter)(new.log.filter()),
                "nodePortAddresses" => {
                    (self.live.node_port_addresses)(new.proxy.node_port_addresses.clone());
                    self.config.proxy.node_port_addresses = new.proxy.node_port_addresses.clone();
                }
                _ => (self.live.late_after)(new.servers.late_after),
            }
            self.config.settings.copy(path, &new.settings);
            changed.push(path);
        }
        self.in_force.send_replace(self.config.settings.clone());
        changed
    }
}

/// Reports changes in the directories of the files: a ConfigMap volume and most editors put another file in the place of the
/// old one. They are reported for as long as the watcher lives; without one, the other end of the channel is gone.
fn watch(files: &[PathBuf]) -> (Option<RecommendedWatcher>, Receiver<()>) {
    let (sender, changes) = channel();
    // Reading a file opens it, which is an event of its own: it must not lead to the next reading.
    let tell = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            // Disconnected: nobody follows any more.
            let _ = sender.send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(tell) {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(%error, "configuration files are only read again every {FULL_READ:?}");
            return (None, changes);
        }
    };
    let directories: BTreeSet<&Path> = files.iter().map(|file| directory_of(file)).collect();
    for directory in directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            warn!(directory = %directory.display(), %error, "the configuration is only read again every {FULL_READ:?}");
        }
    }
    (Some(watcher), changes)
}

fn directory_of(file: &Path) -> &Path {
    // The parent of a bare name is an empty path, which cannot be watched.
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a field can change at run time.
fn is_live(path: &str, old: &Config, new: &Config) -> bool {
    match path {
        "iptables.syncPeriod" | "nftables.syncPeriod" | "logging.verbosity" => true,
        // Rules for 127.0.0.1 are made when the data plane is.
        "nodePortAddresses" => old.proxy.packets.localhost_node_ports == new.proxy.packets.localhost_node_ports,
        _ => false,
    }
}

/// What a restart would change.
fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let fields = old.settings.differences(&new.settings).into_iter();
    let used = fields.filter(|path| field(path).is_some_and(|field| matches!(field.effect, Effect::Used(_))));
    let net_conf = [&old.overlay, &new.overlay].map(|overlay| overlay.as_ref().map(|overlay| &overlay.net_conf));
    let net_conf = (net_conf[0] != net_conf[1]).then(|| "net-conf.json".to_owned());
    used.map(str::to_owned).chain(net_conf).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::{super::tests::Files, directory_of, is_live, restart_needed, watch};

    #[test]
    fn reading_a_file_is_no_change_of_it() {
        let files = Files::new();
        let path = files.path("net-conf.json");
        let (_watcher, changes) = watch(&[path.clone().into()]);
        fs::read(&path).unwrap();
        assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());
        fs::write(&path, "{}").unwrap();
        assert!(changes.recv_timeout(Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn a_bare_name_is_watched_where_we_are() {
        assert_eq!(directory_of(Path::new("config.conf")), Path::new("."));
        assert_eq!(directory_of(Path::new("/etc/config.conf")), Path::new("/etc"));
    }

    #[test]
    fn what_takes_effect_at_once_and_what_needs_a_restart() {
        let files = Files::new();
        let load = |lines: &str| {
            let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
            fs::write(files.path("config.conf"), format!("{head}{lines}")).unwrap();
            files.load(&[&format!("--config={}", files.path("config.conf"))]).unwrap()
        };
        let old = load("mode: ebpf\n");
        let new = load("mode: iptables\nnodePortAddresses: [127.0.0.0/8]\nportRange: 1-2\nlogging: {verbosity: 4}\n");
        assert_eq!(
            old.settings.differences(&new.settings),
            ["logging.verbosity", "mode", "nodePortAddresses", "portRange"]
        );
        let live: Vec<_> =
            old.settings.differences(&new.settings).into_iter().filter(|it| is_live(it, &old, &new)).collect();
        assert_eq!(live, ["logging.verbosity", "nodePortAddresses"]);
        let mut now = old.clone();
        live.iter().for_each(|path| now.settings.copy(path, &new.settings));
        assert_eq!(restart_needed(&now, &new), ["mode"]);
        assert!(!is_live("nodePortAddresses", &old, &load("nodePortAddresses: [10.0.0.0/8]\n")), "127.0.0.1 is lost");
    }

    #[test]
    fn another_network_needs_a_restart() {
        let files = Files::new();
        let old = files.load(&[]).unwrap();
        fs::write(files.path("net-conf.json"), r#"{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        assert_eq!(restart_needed(&old, &files.load(&[]).unwrap()), ["net-conf.json"]);
    }
}
