//! The files of a lease directory. Knows their form, not what they mean.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    atomic_file,
    lease::{Lease, LeaseAttributes, LeaseError, Rejection, Subnets},
};

/// How long the lock is waited for. It is held for some file operations only, so a holder this slow is stopped or stuck.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// How old a file must be to be told from a newer one by its time. Ticks are 10 ms at most.
const SETTLED: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// Tells whether a file was written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: SystemTime,
    length: u64,
}

impl Stamp {
    /// `None` if the file was written a moment ago: another write within the same tick of the kernel's clock would not show.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok()?;
        let settled = modified.elapsed().is_ok_and(|age| age > SETTLED);
        settled.then(|| Self { inode: metadata.ino(), modified, length: metadata.len() })
    }
}

/// Released when dropped, and by the kernel when the process dies.
pub(super) struct Lock {
    _file: File,
}

/// What is in `subnets/` now, by key; `None` for a lease that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    entries: BTreeMap<Subnets, Option<Lease>>,
}

impl Listing {
    pub(super) fn keys(&self) -> impl Iterator<Item = Subnets> + '_ {
        self.entries.keys().copied()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.entries.values().flatten()
    }

    pub(super) fn lease(&self, subnets: Subnets) -> Option<&Lease> {
        self.entries.get(&subnets)?.as_ref()
    }
}

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn subnets_dir(&self) -> PathBuf {
        self.root.join("subnets")
    }

    fn nodes_dir(&self) -> PathBuf {
        self.root.join("nodes")
    }

    pub(super) fn exists(&self) -> bool {
        self.root.is_dir()
    }

    pub(super) fn create(&self) -> Result<(), LeaseError> {
        for directory in [self.subnets_dir(), self.nodes_dir()] {
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        }
        Ok(())
    }

    /// Waits for the lock of the directory.
    pub(super) fn lock(&self) -> Result<Lock, LeaseError> {
        let path = self.root.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(failed("open", &path))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(LeaseError::Locked { path, waited: LOCK_WAIT });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
        }
    }

    /// Reads all leases. A directory that does not exist yet holds none.
    pub(super) fn list(&self) -> Result<Listing, LeaseError> {
        let mut listing = Listing::default();
        for name in self.names()? {
            if let (Ok(subnets), Some(read)) = (name.parse(), self.read(&name)) {
                listing.entries.insert(subnets, read.ok());
            }
        }
        Ok(listing)
    }

    /// Names of the files that leases are in, keys or not.
    pub(super) fn names(&self) -> Result<Vec<String>, LeaseError> {
        file_names(&self.subnets_dir())
    }

    pub(super) fn stamp(&self, name: &str) -> Option<Stamp> {
        Stamp::of(&self.subnets_dir().join(name))
    }

    /// Reads one lease; `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> Option<Result<Lease, Rejection>> {
        let rejected = |reason, subnets| Some(Err(Rejection { reason, subnets }));
        let text = match fs::read_to_string(self.subnets_dir().join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            text => text.map_err(|error| error.to_string()),
        };
        let subnets: Subnets = match name.parse::<Subnets>() {
            Ok(subnets) => subnets,
            Err(error) => return rejected(error.to_string(), None),
        };
        match text.and_then(|text| LeaseAttributes::from_json(&text).map_err(|error| error.to_string())) {
            Ok(attributes) => Some(Ok(Lease { subnets, attributes })),
            Err(reason) => rejected(reason, Some(subnets)),
        }
    }

    /// Writes a lease in one step, or does nothing if it is there already.
    pub(super) fn write(&self, lease: &Lease) -> Result<(), LeaseError> {
        replace(&self.subnets_dir().join(lease.subnets.to_string()), &lease.attributes.to_json())
    }

    pub(super) fn remove(&self, subnets: Subnets) -> Result<(), LeaseError> {
        remove(&self.subnets_dir().join(subnets.to_string()))
    }

    /// The subnets noted for a node; `None` if there is no note, or none that can be read.
    pub(super) fn node(&self, name: &str) -> Result<Option<Subnets>, LeaseError> {
        check_node_name(name)?;
        let path = self.nodes_dir().join(name);
        match fs::read_to_string(&path) {
            Ok(key) => Ok(key.trim_end().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    pub(super) fn name_node(&self, name: &str, subnets: Subnets) -> Result<(), LeaseError> {
        replace(&self.nodes_dir().join(name), &format!("{subnets}\n"))
    }

    pub(super) fn forget_node(&self, name: &str) -> Result<(), LeaseError> {
        remove(&self.nodes_dir().join(name))
    }

    /// The subnets noted for each node; notes that cannot be read are left out.
    pub(super) fn nodes(&self) -> Result<BTreeMap<String, Subnets>, LeaseError> {
        let mut nodes = BTreeMap::new();
        for name in file_names(&self.nodes_dir())? {
            if let Some(subnets) = self.node(&name)? {
                nodes.insert(name, subnets);
            }
        }
        Ok(nodes)
    }
}

/// A node name becomes a file name, and hidden ones are temporary files.
pub(super) fn check_node_name(name: &str) -> Result<(), LeaseError> {
    let usable = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    if usable { Ok(()) } else { Err(LeaseError::NodeName { name: name.into() }) }
}

/// Visible files of a directory; none if it does not exist.
fn file_names(directory: &Path) -> Result<Vec<String>, LeaseError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", directory)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", directory))?.file_name();
        let name = name.to_string_lossy();
        if is_visible(&name) {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// Hidden files are temporary ones.
pub(super) fn is_visible(name: &str) -> bool {
    !name.starts_with('.')
}

fn replace(path: &Path, text: &str) -> Result<(), LeaseError> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    atomic_file::replace(path, text).map_err(failed("write", path))
}

fn remove(path: &Path) -> Result<(), LeaseError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseError {
    let path = path.to_owned();
    move |source| LeaseError::File { doing, path, source }
}
