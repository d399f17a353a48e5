//! The pin directory: `<bpffs>/weft/v<ABI>/`, one file per map and one per link.
//!
//! What is pinned outlives the agent; removing the last pin of a link detaches its program at once.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use weft_ebpf_abi::{ABI_VERSION, MAPS, MapSpec};

use crate::Error;

/// Where systems keep the BPF filesystem, and the only place this crate mounts one by itself.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// Below `--bpffs`; several products share one filesystem.
const DIRECTORY: &str = "weft";

/// The pins of this ABI version.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Makes the directory, and mounts a BPF filesystem first if `bpffs` is `/sys/fs/bpf` and has none yet.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, Error> {
        ensure_mounted(bpffs)?;
        let directory = bpffs.join(DIRECTORY).join(format!("v{ABI_VERSION}"));
        fs::create_dir_all(&directory).map_err(|source| Error::file("make pin directory", &directory, source))?;
        Ok(Self { directory })
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the link of a program is pinned.
    pub(crate) fn link(&self, program: &str) -> PathBuf {
        self.directory.join(format!("link_{program}"))
    }

    /// Compares what is pinned with what is compiled in. aya reuses a pinned map without looking, and the verifier notices only some of
    /// the differences.
    pub(crate) fn check_layouts(&self) -> Result<(), Error> {
        for spec in &MAPS {
            let pin = self.map(spec.name);
            if !exists(&pin)? {
                continue;
            }
            let info = MapInfo::from_pin(&pin).map_err(|source| Error::Map {
                doing: "open pinned",
                map: spec.name,
                source: Box::new(source),
            })?;
            check_layout(pin, spec, &info)?;
        }
        Ok(())
    }

    /// Removes the pins of other ABI versions, whose programs would run beside ours. Only called once ours are attached.
    pub(crate) fn remove_other_versions(&self) -> Result<(), Error> {
        let parent = self.directory.parent().expect("open() joined two components");
        let ours = self.directory.file_name();
        for directory in read_directory(parent)? {
            let name = directory.file_name();
            if name != ours && name.and_then(OsStr::to_str).is_some_and(is_version) {
                tracing::info!(directory = %directory.display(), "removing pins of another version");
                remove_directory(&directory)?;
            }
        }
        Ok(())
    }
}

/// Removes every pin of every ABI version below `bpffs`, and so detaches the programs. Nothing there is no error.
///
/// # Errors
/// The first file that could not be removed; the others are gone.
pub fn remove_pins(bpffs: &Path) -> Result<(), Error> {
    let root = bpffs.join(DIRECTORY);
    let mut first_error = None;
    for directory in read_directory(&root)? {
        if let Err(error) = remove_directory(&directory) {
            first_error.get_or_insert(error);
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => ignore_missing(fs::remove_dir(&root), "remove", &root),
    }
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
}

fn remove_directory(directory: &Path) -> Result<(), Error> {
    let mut pins = read_directory(directory)?;
    // Links before maps, and the hooks that translate before those that translate back.
    pins.sort_by_key(|pin| {
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let forward = name.starts_with("link_connect") || name.starts_with("link_sendmsg");
        (!forward, !name.starts_with("link_"), name)
    });
    for pin in &pins {
        ignore_missing(fs::remove_file(pin), "remove pin", pin)?;
    }
    ignore_missing(fs::remove_dir(directory), "remove", directory)
}

fn read_directory(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::file("read", directory, source);
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
    }
}

fn ignore_missing(result: io::Result<()>, doing: &'static str, path: &Path) -> Result<(), Error> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::file(doing, path, source)),
        _ => Ok(()),
    }
}

/// Like `Path::exists`, which takes "not permitted" for "not there".
pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|source| Error::file("look at", path, source))
}

fn check_layout(pin: PathBuf, spec: &MapSpec, info: &MapInfo) -> Result<(), Error> {
    // A kind aya does not know is certainly another one than ours.
    let kind = info.map_type().map_or(u32::MAX, |kind| kind as u32);
    let pairs = [
        ("the map type", kind, spec.kind as u32),
        ("the key size", info.key_size(), spec.key_size),
        ("the value size", info.value_size(), spec.value_size),
        ("the number of elements", info.max_entries(), spec.max_entries),
        ("the set of flags", info.map_flags(), spec.flags),
    ];
    match pairs.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((property, found, expected)) => Err(Error::Layout { pin, property, found, expected }),
    }
}

fn ensure_mounted(bpffs: &Path) -> Result<(), Error> {
    // The path itself may be a directory yet to be made, below the mount point.
    let existing = bpffs.ancestors().find(|path| path.exists()).unwrap_or(bpffs);
    let found = statfs(existing).map_err(|errno| Error::file("look at", existing, errno.into()))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    if bpffs != Path::new(DEFAULT_BPFFS) || existing != bpffs {
        return Err(Error::NotBpffs { path: bpffs.to_owned() });
    }
    tracing::info!(path = %bpffs.display(), "mounting the BPF filesystem");
    mount(Some("bpf"), bpffs, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| Error::file("mount the BPF filesystem at", bpffs, errno.into()))
}
