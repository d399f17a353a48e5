//! The ways to make a pod's network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use weft_netlink::Netns;
use weft_tests::Binaries;

use super::{
    calls::{self, Tracer},
    pod::Pod,
};

/// Where Debian puts the plugins of package containernetworking-plugins.
pub(super) const DEBIAN: &str = "/usr/lib/cni";

/// Index of `weft-cni` without anything else in [`all`].
pub(super) const WEFT: usize = 2;
/// The same with a host port.
pub(super) const WEFT_HOST_PORT: usize = 3;
/// Debian's chain with a host port.
pub(super) const CHAIN_HOST_PORT: usize = 7;

/// What a pod gets.
#[derive(Clone, Copy, Default)]
struct Wishes {
    ipv6: bool,
    host_port: bool,
    bandwidth: bool,
}

const PLAIN: Wishes = Wishes { ipv6: false, host_port: false, bandwidth: false };
const HOST_PORT: Wishes = Wishes { host_port: true, ..PLAIN };
const BANDWIDTH: Wishes = Wishes { bandwidth: true, ..PLAIN };
const DUAL_STACK: Wishes = Wishes { ipv6: true, ..PLAIN };

/// Who makes it.
enum Maker {
    /// `weft-wire`.
    Wire(PathBuf),
    /// A chain of plugins, each with its configuration.
    Plugins(Vec<(PathBuf, Value)>),
}

/// Sets a maker up, with its files in a directory.
type Make<'a> = dyn Fn(&Path, Wishes) -> Result<Maker> + 'a;

/// One way, and the node it is gone on.
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) node: Netns,
    /// Index of the lane it is compared with: the kernel's work for the same families.
    pub(super) reference: usize,
    maker: Maker,
    wishes: Wishes,
    directory: PathBuf,
}

/// All, in the order of the table.
pub(super) fn all(directory: &Path) -> Result<Vec<Lane>> {
    let binaries = Binaries::locate()?;
    let wire = |_: &Path, _| Ok(Maker::Wire(binaries.beside("weft-wire")?));
    let weft = |directory: &Path, wishes| weft(&binaries.cni, directory, wishes);
    let chain = |directory: &Path, wishes| Ok(chain(directory, wishes));
    let lanes: [(_, &Make<'_>, _); 10] = [
        ("kernel alone", &wire, PLAIN),
        ("kernel alone, dual-stack", &wire, DUAL_STACK),
        ("weft-cni", &weft, PLAIN),
        ("weft-cni, hostPort", &weft, HOST_PORT),
        ("weft-cni, bandwidth", &weft, BANDWIDTH),
        ("weft-cni, dual-stack", &weft, DUAL_STACK),
        ("chain", &chain, PLAIN),
        ("chain, hostPort", &chain, HOST_PORT),
        ("chain, bandwidth", &chain, BANDWIDTH),
        ("chain, dual-stack", &chain, DUAL_STACK),
    ];
    let mut made = Vec::new();
    for (name, make, wishes) in lanes {
        let directory = directory.join(made.len().to_string());
        fs::create_dir(&directory)?;
        let maker = make(&directory, wishes)?;
        made.push(Lane { name, node: Netns::create()?, reference: usize::from(wishes.ipv6), maker, wishes, directory });
    }
    Ok(made)
}

/// The configuration that the agent writes.
fn weft(plugin: &Path, directory: &Path, wishes: Wishes) -> Result<Maker> {
    let file = directory.join("subnet.env");
    let ipv6 = if wishes.ipv6 { "FLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\n" } else { "" };
    fs::write(&file, format!("FLANNEL_SUBNET=10.244.1.1/24\n{ipv6}FLANNEL_MTU=1450\n"))?;
    let configuration = json!({ "type": "weft-cni", "subnetFile": file, "dataDir": directory.join("networks") });
    Ok(Maker::Plugins(vec![(plugin.to_owned(), configuration)]))
}

/// What flannel delegates to, and what its manifest chains.
fn chain(directory: &Path, wishes: Wishes) -> Maker {
    let mut ranges = vec![json!([{ "subnet": "10.244.1.0/24" }])];
    if wishes.ipv6 {
        ranges.push(json!([{ "subnet": "fd44:0:0:1::/64" }]));
    }
    let ipam = json!({ "type": "host-local", "ranges": ranges, "dataDir": directory.join("networks") });
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "mtu": 1450, "ipam": ipam,
    })];
    let extras = [(wishes.host_port, "portmap"), (wishes.bandwidth, "bandwidth")];
    plugins.extend(extras.into_iter().filter(|(wished, _)| *wished).map(|(_, name)| json!({ "type": name })));
    let path = |plugin: &Value| Path::new(DEBIAN).join(plugin["type"].as_str().unwrap_or_default());
    Maker::Plugins(plugins.into_iter().map(|plugin| (path(&plugin), plugin)).collect())
}

impl Lane {
    /// ADD and DEL once, so that what the first pod of a node makes is there. Returns how many programs ADD ran.
    pub(super) fn warm_up(&self, pod: &Pod) -> Result<usize> {
        let tracer = Tracer::new(&self.directory);
        let mut execs = 0;
        let traced = |program: &Path| tracer.command(program);
        self.node.run(|| -> Result<()> {
            self.add_by(pod, &traced, &mut || {
                execs += tracer.execs()?;
                Ok(())
            })?;
            self.del(pod).map(drop)
        })??;
        Ok(execs)
    }

    /// Makes the pod's network, from the node. Returns how long its programs took.
    pub(super) fn add(&self, pod: &Pod) -> Result<Duration> {
        self.add_by(pod, &|program| Command::new(program), &mut || Ok(()))
    }

    fn add_by(
        &self,
        pod: &Pod,
        command: &dyn Fn(&Path) -> Command,
        after_each: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Duration> {
        let mut took = Duration::ZERO;
        match &self.maker {
            Maker::Wire(program) => {
                let number = pod.number + 2;
                let mut wire = command(program);
                wire.args(["add", &pod.path, &format!("bench{number}"), &format!("10.244.1.{number}=10.244.1.1")]);
                if self.wishes.ipv6 {
                    wire.arg(format!("fd44:0:0:1::{number:x}=fd44:0:0:1::1"));
                }
                took += calls::run(&mut wire, &[])?.took;
                after_each()?;
            }
            Maker::Plugins(plugins) => {
                let mut result = Value::Null;
                for (program, configuration) in plugins {
                    let answer =
                        calls::plugin(command(program), "ADD", pod, &self.complete(configuration, pod, &result))?;
                    took += answer.took;
                    result = serde_json::from_slice(&answer.stdout).context("result of ADD")?;
                    after_each()?;
                }
                *pod.result.lock().map_err(|_| anyhow!("another thread failed"))? = result;
            }
        }
        Ok(took)
    }

    /// Takes it away. Returns how long its programs took.
    pub(super) fn del(&self, pod: &Pod) -> Result<Duration> {
        let mut took = Duration::ZERO;
        match &self.maker {
            Maker::Wire(program) => took += calls::run(Command::new(program).args(["del", &pod.path]), &[])?.took,
            Maker::Plugins(plugins) => {
                let result = pod.result.lock().map_err(|_| anyhow!("another thread failed"))?.take();
                for (program, configuration) in plugins.iter().rev() {
                    let configuration = self.complete(configuration, pod, &result);
                    took += calls::plugin(Command::new(program), "DEL", pod, &configuration)?.took;
                }
            }
        }
        Ok(took)
    }

    /// A plugin's configuration as the runtime hands it over.
    fn complete(&self, configuration: &Value, pod: &Pod, result: &Value) -> Value {
        let mut complete = configuration.clone();
        complete["cniVersion"] = "1.0.0".into();
        complete["name"] = "bench".into();
        if !result.is_null() {
            complete["prevResult"] = result.clone();
        }
        if self.wishes.host_port {
            let port = 20_000 + pod.number;
            complete["runtimeConfig"]["portMappings"] =
                json!([{ "hostPort": port, "containerPort": 80, "protocol": "tcp" }]);
        }
        if self.wishes.bandwidth {
            let (rate, burst) = (100_000_000, 8_000_000);
            complete["runtimeConfig"]["bandwidth"] =
                json!({ "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst });
        }
        complete
    }
}
