//! Debian's nft and iptables, and all they need: from this machine, or unpacked from packages for another processor.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use weft_oci::Layer;

use super::{architecture::Architecture, elf};
use crate::{step, workspace};

/// Programs that the agent runs; iptables' others are links to these.
const PROGRAMS: &[&str] = &["nft", "xtables-nft-multi", "xtables-legacy-multi"];
/// Packages with them, their libraries and iptables' extensions, for a processor that is not this machine's.
const PACKAGES: &[&str] = &[
    "nftables",
    "iptables",
    "libbsd0",
    "libc6",
    "libedit2",
    "libgmp10",
    "libip4tc2",
    "libip6tc2",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftables1",
    "libnftnl11",
    "libtinfo6",
    "libxtables12",
];
const SBIN: &str = "/usr/sbin";

/// A directory with a Debian system.
#[derive(Debug)]
pub(crate) struct Sysroot {
    directory: PathBuf,
    architecture: Architecture,
}

impl Sysroot {
    /// This machine's own root, or one that is made below `target/`.
    pub(crate) fn of(architecture: Architecture) -> Result<Self> {
        let directory =
            if architecture.is_this_machine() { PathBuf::from("/") } else { unpacked_packages(architecture)? };
        Ok(Self { directory, architecture })
    }

    /// Adds nft, iptables of both kinds, iptables' extensions, and what all of them need.
    pub(crate) fn add_packet_filters(&self, layer: &mut Layer) -> Result<()> {
        let mut wanted: Vec<String> = PROGRAMS.iter().map(|name| format!("{SBIN}/{name}")).collect();
        wanted.extend(self.extensions()?);
        let mut added = BTreeSet::new();
        while let Some(path) = wanted.pop() {
            if !added.insert(path.clone()) {
                continue;
            }
            let content = self.read(&path)?;
            let needs = elf::needs(&content).with_context(|| path.clone())?;
            wanted.extend(needs.loader);
            for library in needs.libraries {
                wanted.push(self.library(&library).with_context(|| format!("{path} needs {library}"))?);
            }
            layer.file(&path, content, 0o755)?;
        }
        for (name, program) in links() {
            layer.link(&format!("{SBIN}/{name}"), &program)?;
        }
        Ok(())
    }

    /// iptables loads these by name, so that no program says which of them it needs.
    fn extensions(&self) -> Result<Vec<String>> {
        let directory = format!("/usr/lib/{}/xtables", self.architecture.multiarch());
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(&directory)).with_context(|| format!("list {directory}"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links are old names of extensions (libxt_NOTRACK.so), and none is for ARP or Ethernet.
            let ours = ["libxt_", "libipt_", "libip6t_"].iter().any(|prefix| name.starts_with(prefix));
            if ours && entry.file_type()?.is_file() {
                found.push(format!("{directory}/{name}"));
            }
        }
        ensure!(!found.is_empty(), "{directory} has no extensions of iptables");
        Ok(found)
    }

    fn library(&self, name: &str) -> Result<String> {
        let multiarch = self.architecture.multiarch();
        let places = [format!("/lib/{multiarch}/{name}"), format!("/usr/lib/{multiarch}/{name}")];
        places.into_iter().find(|path| self.path(path).exists()).context("it is in neither /lib nor /usr/lib")
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.path(path);
        fs::read(&path).with_context(|| format!("read {}: `cargo xtask setup` installs it", path.display()))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path.trim_start_matches('/'))
    }
}

/// `iptables-nft-restore` and so on; the plain names mean iptables-nft, as on Debian.
fn links() -> Vec<(String, String)> {
    let mut links = Vec::new();
    for base in ["iptables", "ip6tables"] {
        for tool in ["", "-save", "-restore"] {
            for (kind, program) in [("", "nft"), ("-nft", "nft"), ("-legacy", "legacy")] {
                links.push((format!("{base}{kind}{tool}"), format!("xtables-{program}-multi")));
            }
        }
    }
    links
}

/// Fetches packages for another processor and unpacks them, with apt's state below `target/`: the machine stays as it is.
fn unpacked_packages(architecture: Architecture) -> Result<PathBuf> {
    let top = workspace::target().join("image/debian").join(architecture.go_name());
    let root = top.join("root");
    if root.join("usr/sbin/nft").exists() {
        return Ok(root);
    }
    for part in ["lists/partial", "cache/archives/partial", "packages", "root"] {
        fs::create_dir_all(top.join(part)).with_context(|| format!("create {part} in {}", top.display()))?;
    }
    let status = top.join("status");
    fs::write(&status, "").with_context(|| format!("write {}", status.display()))?;
    let options = [
        format!("APT::Architecture={}", architecture.go_name()),
        format!("APT::Architectures={}", architecture.go_name()),
        format!("Dir::State::Lists={}", top.join("lists").display()),
        format!("Dir::State::Status={}", status.display()),
        format!("Dir::Cache={}", top.join("cache").display()),
    ];
    let apt = |arguments: &[&str]| {
        let mut command = step::command("apt-get");
        command.current_dir(top.join("packages")).arg("-q").args(arguments);
        for option in &options {
            command.args(["-o", option]);
        }
        command
    };
    step::run(&format!("read Debian's list of packages for {}", architecture.go_name()), &mut apt(&["update"]))?;
    let mut download = vec!["download"];
    download.extend(PACKAGES);
    step::run(&format!("fetch nft and iptables for {}", architecture.go_name()), &mut apt(&download))?;
    unpack(&top.join("packages"), &root)?;
    Ok(root)
}

fn unpack(packages: &Path, root: &Path) -> Result<()> {
    let entries = fs::read_dir(packages).with_context(|| format!("list {}", packages.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    // By name: nftables is the last, and its program the sign that all are unpacked.
    files.sort();
    for package in files {
        let mut command = step::command("dpkg-deb");
        let output = command.arg("--extract").arg(&package).arg(root).output().context("start dpkg-deb")?;
        ensure!(
            output.status.success(),
            "unpack {}: {}",
            package.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
