//! The pin directory: `<bpffs>/weft/v<ABI>/`, one file per map and one per link.
//!
//! What is pinned outlives the agent; removing the last pin of a link detaches its program at once.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use weft_ebpf_abi::{ABI_VERSION, MAPS, MapSpec, name};

use crate::{Error, MapSizes};

/// Where systems keep the BPF filesystem, and the only place this crate mounts one by itself.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// Below `--bpffs`; several products share one filesystem.
const DIRECTORY: &str = "weft";

/// Before the name of a pin that is to replace the one of the name itself. The BPF filesystem allows no dots in names.
const FRESH: &str = "new_";
/// The maps that refer to elements of one another; none of them makes sense with another's predecessor.
const TABLE: [&str; 7] = [
    name::SERVICES4,
    name::SERVICES6,
    name::BACKENDS4,
    name::BACKENDS6,
    name::ROUND_ROBIN,
    name::CONNECTIONS,
    name::AFFINITY,
];

/// The pins of this ABI version.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
    /// Maps that are made anew because they are to have another size, beside those the attached programs use.
    fresh: BTreeSet<&'static str>,
}

impl Pins {
    /// Makes the directory, and mounts a BPF filesystem first if `bpffs` is `/sys/fs/bpf` and has none yet.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, Error> {
        ensure_mounted(bpffs)?;
        let directory = directory(bpffs, ABI_VERSION);
        fs::create_dir_all(&directory).map_err(|source| Error::file("make pin directory", &directory, source))?;
        Ok(Self { directory, fresh: BTreeSet::new() })
    }

    /// Where a map is to be found, or to be made.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        let pin = self.directory.join(name);
        if self.fresh.contains(name) { fresh(&pin) } else { pin }
    }

    /// Where the link of a program is pinned.
    pub(crate) fn link(&self, program: &str) -> PathBuf {
        link(&self.directory, program)
    }

    /// Compares what is pinned with what is compiled in: aya reuses a pinned map without looking, and the verifier notices only some of
    /// the differences. Then decides which maps are made anew.
    pub(crate) fn check_maps(&mut self, sizes: &MapSizes) -> Result<(), Error> {
        let mut other_size = BTreeSet::new();
        for spec in &MAPS {
            let pin = self.directory.join(spec.name);
            // Left by an agent that ended while it switched: some maps may be the new ones and some the old.
            if exists(&fresh(&pin))? {
                ignore_missing(fs::remove_file(fresh(&pin)), "remove pin", &fresh(&pin))?;
                other_size.insert(spec.name);
            }
            if !exists(&pin)? {
                continue;
            }
            let info = MapInfo::from_pin(&pin).map_err(|source| Error::Map {
                doing: "open pinned",
                map: spec.name,
                source: Box::new(source),
            })?;
            let (found, wanted) = (info.max_entries(), sizes.of(spec.name));
            check_layout(pin, spec, &info)?;
            if found != wanted {
                tracing::info!(map = spec.name, found, wanted, "the map is made anew with another size");
                other_size.insert(spec.name);
            }
        }
        if other_size.iter().any(|map| TABLE.contains(map)) {
            other_size.extend(TABLE);
        }
        self.fresh = other_size;
        Ok(())
    }

    /// Puts the fresh maps in the place of their predecessors, once no program uses those any more.
    pub(crate) fn replace_maps(&mut self) -> Result<(), Error> {
        while let Some(&name) = self.fresh.first() {
            let pin = self.directory.join(name);
            fs::rename(fresh(&pin), &pin).map_err(|source| Error::file("replace pin", &pin, source))?;
            self.fresh.pop_first();
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

/// Where the pins of an ABI version are.
pub(crate) fn directory(bpffs: &Path, version: u32) -> PathBuf {
    bpffs.join(DIRECTORY).join(format!("v{version}"))
}

/// Where in it the link of a program is pinned.
pub(crate) fn link(directory: &Path, program: &str) -> PathBuf {
    directory.join(format!("link_{program}"))
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

/// Where the successor of a pin waits.
pub(crate) fn fresh(pin: &Path) -> PathBuf {
    pin.with_file_name(format!("{FRESH}{}", pin.file_name().unwrap_or_default().to_string_lossy()))
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
