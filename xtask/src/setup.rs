//! `setup`: looks for what building and testing need, and installs what is missing.
//!
//! It looks at the real thing each time (installed packages, components, the program's version); no stamp
//! file can be wrong then. With nothing missing this takes a tenth of a second.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{step, workspace};

/// Debian packages and what each is for.
const PACKAGES: &[(&str, &str)] = &[
    ("llvm-22-dev", "bpf-linker: LLVM"),
    ("libpolly-22-dev", "bpf-linker: part of LLVM"),
    ("g++", "fuzz: libFuzzer"),
    ("protobuf-compiler", "etcd-client: its build script compiles etcd's protocol files"),
    ("libprotobuf-dev", "etcd-client: the protocol files that those import"),
    ("iproute2", "agent and tests: ip"),
    ("iptables", "agent: nodes without nft; tests"),
    ("nftables", "agent: packet path"),
    ("conntrack", "tests: look at conntrack"),
    ("containernetworking-plugins", "tests: CNI plugins that weft-cni calls and works beside"),
    ("strace", "bench: count the programs that CNI plugins start"),
    ("etcd-server", "tests: subnet leases in etcd"),
    ("openssl", "tests: keys of a real API server"),
    ("socat", "tests: TLS in front of the small API server"),
    ("containerd", "tests: the runtime that calls weft-cni"),
    ("runc", "tests: containers of containerd"),
    ("binutils", "tests and image: strip"),
    ("musl-tools", "image: the C compiler for static programs"),
    ("procps", "tests: sysctl"),
    ("util-linux", "tests: nsenter, setpriv"),
    ("curl", "tests: HTTP endpoints"),
    ("jq", "tests: look at JSON"),
    (KUBECTL, "tests: kubectl at the API server"),
    ("iperf3", "bench: throughput"),
    ("wrk", "bench: HTTP load"),
    ("ethtool", "bench: offloads"),
    ("tcpdump", "looking around in a cluster"),
    ("bpftool", "looking around in a cluster"),
];
/// Servers that Debian starts with their packages: the tests start their own, with files and addresses of their own.
const SERVICES: &[(&str, &str)] = &[("etcd-server", "etcd"), ("containerd", "containerd")];
/// Debian's package of `kubectl`.
const KUBECTL: &str = "kubernetes-client";
/// Version that the toolchain's LLVM 22 bitcode was tried with.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// Installs what is missing.
pub(crate) fn setup() -> Result<()> {
    let components = missing_components()?;
    let targets = missing_targets(&[&static_target()])?;
    let packages = missing_packages(&PACKAGES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let linker = !bpf_linker_is_there();
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    if !components.is_empty() {
        install_components(&components)?;
    }
    if !targets.is_empty() {
        install_targets(&targets)?;
    }
    if linker {
        install_bpf_linker()?;
    }
    Ok(())
}

fn toolchain() -> Result<(String, Vec<String>)> {
    let file = workspace::read_toml("rust-toolchain.toml")?;
    let toolchain = &file["toolchain"];
    let channel = toolchain.get("channel").and_then(toml::Value::as_str).context("toolchain.channel")?;
    let components = toolchain.get("components").and_then(toml::Value::as_array).context("toolchain.components")?;
    Ok((channel.to_owned(), components.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()))
}

/// Names of components, as `rust-src`, that the pinned toolchain lacks.
fn missing_components() -> Result<Vec<String>> {
    let (channel, mut wanted) = toolchain()?;
    let listing =
        step::output(step::command("rustup").args(["component", "list", "--installed", "--toolchain", &channel]));
    let Some(listing) = listing else {
        bail!("rustup is missing, or has no toolchain {channel}: https://rustup.rs, then rustup install {channel}");
    };
    // A line is the name, for most with the target: clippy-x86_64-unknown-linux-gnu.
    wanted.retain(|name| !listing.lines().any(|line| line == name || line.starts_with(&format!("{name}-"))));
    Ok(wanted)
}

fn install_components(components: &[String]) -> Result<()> {
    let (channel, _) = toolchain()?;
    step::run(
        &format!("install {} for Rust {channel}", components.join(", ")),
        step::command("rustup").args(["component", "add", "--toolchain", &channel]).args(components),
    )
}

/// The target of programs that need no library, for this machine's processor.
pub(crate) fn static_target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}

/// Those of these targets whose standard library the pinned toolchain lacks.
fn missing_targets(wanted: &[&str]) -> Result<Vec<String>> {
    let (channel, _) = toolchain()?;
    let listing =
        step::output(step::command("rustup").args(["target", "list", "--installed", "--toolchain", &channel]))
            .with_context(|| format!("rustup target list, toolchain {channel}"))?;
    let missing = wanted.iter().filter(|target| !listing.lines().any(|line| line.trim() == **target));
    Ok(missing.map(|&target| target.to_owned()).collect())
}

fn install_targets(targets: &[String]) -> Result<()> {
    let (channel, _) = toolchain()?;
    step::run(
        &format!("install the standard library of Rust {channel} for {}", targets.join(", ")),
        step::command("rustup").args(["target", "add", "--toolchain", &channel]).args(targets),
    )
}

/// Installs what is missing of packages that only some work needs.
pub(crate) fn packages(wanted: &[&str]) -> Result<()> {
    let missing = missing_packages(wanted);
    if missing.is_empty() { Ok(()) } else { install_packages(&missing) }
}

/// Installs the standard library of the pinned toolchain for `target`, if need be.
pub(crate) fn target(target: &str) -> Result<()> {
    let missing = missing_targets(&[target])?;
    if missing.is_empty() { Ok(()) } else { install_targets(&missing) }
}

fn missing_packages<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Abbrev}\n"]).args(wanted).env("LC_ALL", "C");
    // It fails when one package is unknown, and still lists the others.
    let listing = query.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let installed = |name: &str| listing.lines().any(|line| line.trim_end() == format!("{name} ii"));
    // kubectl comes from many places, and two packages cannot own /usr/bin/kubectl.
    let elsewhere =
        |name: &str| name == KUBECTL && step::output(Command::new("kubectl").args(["version", "--client"])).is_some();
    wanted.iter().copied().filter(|name| !installed(name) && !elsewhere(name)).collect()
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if step::output(Command::new("apt-get").arg("--version")).is_none() {
        let wanted: Vec<String> = PACKAGES
            .iter()
            .filter(|(name, _)| packages.contains(name))
            .map(|(name, why)| format!("  {name:<16} {why}"))
            .collect();
        bail!(
            "this is no Debian system (no apt-get). Install what these Debian packages hold, then run setup again:\n{}",
            wanted.join("\n")
        );
    }
    if !step::is_root() && !step::has_sudo() {
        bail!("not root and no sudo; as root: apt-get update && apt-get install -y --no-install-recommends {list}");
    }
    step::run("update the package lists", privileged("apt-get").args(["update", "-q"]))?;
    step::run(
        &format!("install {list}"),
        privileged("apt-get").args(["install", "-y", "-q", "--no-install-recommends"]).args(packages),
    )?;
    if PathBuf::from("/run/systemd/system").exists() {
        for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
            step::run(
                &format!("stop the {service} service"),
                privileged("systemctl").args(["disable", "--now", service]),
            )?;
        }
    }
    Ok(())
}

/// A command as root that asks nothing.
fn privileged(program: &str) -> Command {
    let mut command = if step::is_root() {
        Command::new("env")
    } else {
        let mut command = Command::new("sudo");
        command.arg("env");
        command
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    command
}

fn bpf_linker_is_there() -> bool {
    let wanted = format!("bpf-linker {BPF_LINKER}");
    step::output(Command::new("bpf-linker").arg("--version")).is_some_and(|version| version.trim() == wanted)
}

fn install_bpf_linker() -> Result<()> {
    let path = env::var("PATH").unwrap_or_default();
    step::run(
        &format!("build bpf-linker {BPF_LINKER} with LLVM 22 (takes a few minutes)"),
        step::cargo()
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
            // Its default is LLVM 23, which Debian does not have.
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("PATH", format!("{LLVM}/bin:{path}"))
            .env("LLVM_PREFIX", LLVM),
    )
}
