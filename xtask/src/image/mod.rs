//! `image`: the container image of the agent, from scratch, without a container daemon.
//!
//! In it: the agent and its CNI plugin, which need no library, and the programs the agent runs, nft and iptables. Those
//! there are no static builds of; they are Debian's, with exactly the libraries they name.

mod architecture;
mod elf;
mod programs;
mod sysroot;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{self, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use weft_oci::{Compression, Layer};

use self::{architecture::Architecture, sysroot::Sysroot};
use crate::{build::Profile, step, workspace};

/// The image must fit into this, unpacked, in bytes.
const LARGEST: u64 = 30_000_000;
/// Where the image's programs are; the plugin lies beside the agent, which installs it from there.
const BIN: &str = "/usr/bin";

/// Build the container image, as an archive.
#[derive(Args)]
pub(crate) struct Image {
    /// Processor it is for; default: this machine's.
    #[arg(long, value_enum)]
    arch: Option<Architecture>,
    /// Name with tag.
    #[arg(long, default_value = concat!("localhost/weft:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// File to write; default: target/image/weft-VERSION-ARCH.tar.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Unoptimised and not compressed, to try it: builds in a minute, and is three times as large.
    #[arg(long)]
    quick: bool,
}

impl Image {
    /// The one that the tests of `tests/tests/containerd` run.
    pub(crate) fn for_tests() -> Self {
        Self {
            arch: None,
            name: "weft.test/weft:1".to_owned(),
            output: Some(workspace::target().join("image/weft-test.tar")),
            quick: true,
        }
    }

    pub(crate) fn run(self) -> Result<()> {
        let architecture = self.arch.map_or_else(Architecture::of_this_machine, Ok)?;
        let output = match &self.output {
            Some(path) => path::absolute(path).with_context(|| format!("path {}", path.display()))?,
            None => default_output(architecture),
        };
        let profile = if self.quick { Profile::Dev } else { Profile::Release };
        let build = programs::build(architecture, profile)?;
        let sysroot = Sysroot::of(architecture)?;
        let mut layer = Layer::default();
        programs::add_weft(&mut layer, &build)?;
        sysroot.add_packet_filters(&mut layer)?;
        add_directories(&mut layer)?;
        let size = layer.size();
        ensure!(self.quick || size <= LARGEST, "the image has {size} bytes, more than {LARGEST}");
        let image = weft_oci::Image {
            name: self.name,
            architecture: architecture.go_name().to_owned(),
            entrypoint: vec![format!("{BIN}/weft")],
            environment: BTreeMap::from([("PATH".to_owned(), format!("/usr/sbin:{BIN}"))]),
            labels: labels(),
            layer,
            compression: if self.quick { Compression::None } else { Compression::Gzip },
        };
        let directory = output.parent().context("directory of the archive")?;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        image.write(File::create(&output).with_context(|| format!("create {}", output.display()))?)?;
        let packed = fs::metadata(&output)?.len();
        println!("{}: {} {packed} bytes, unpacked {size}", image.name, output.display());
        Ok(())
    }
}

fn default_output(architecture: Architecture) -> PathBuf {
    let file = format!("weft-{}-{}.tar", env!("CARGO_PKG_VERSION"), architecture.go_name());
    workspace::target().join("image").join(file)
}

/// What runs on a read-only root file system expects to be there: mount points.
fn add_directories(layer: &mut Layer) -> Result<()> {
    for path in ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var/lib"] {
        layer.directory(path)?;
    }
    // nft asks for protocols by name; without the file "tcp" is unknown.
    layer.file("/etc/protocols", PROTOCOLS.as_bytes().to_vec(), 0o644)
}

/// The protocols of rules, by IANA's numbers (protocols(5)).
const PROTOCOLS: &str = "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n";

fn labels() -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), "weft".to_owned()),
        ("org.opencontainers.image.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.licenses".to_owned(), env!("CARGO_PKG_LICENSE").to_owned()),
    ]);
    if let Some(revision) = step::output(step::command("git").args(["rev-parse", "HEAD"])) {
        labels.insert("org.opencontainers.image.revision".to_owned(), revision.trim().to_owned());
    }
    labels
}
