//! The directory of one network: a file for each address in use, as host-local keeps it.
//!
//! `<address>` holds `<container ID>\r\n<ifname>`; `last_reserved_ip.<set>` the address given last; `lock` is flocked
//! while anything is read or written. Other programs read and remove these files; whoever removes one frees the address.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Error, Owner, address_of_file, holder};
use crate::{attachment::ValidAttachments, teardown::Teardown};

/// Where a reservation is written before it gets its name. No address has this name.
const SCRATCH: &str = "weft-cni.tmp";

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// `None` only when opened to read.
    _lock: Option<File>,
}

impl Owner<'_> {
    fn content(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

impl Store {
    /// Opens the directory, making it if need be, and waits for the lock.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|source| failed("create", directory, source))?;
        Self::lock(directory)
    }

    /// Opens the directory if there is one.
    pub(super) fn open_existing(directory: &Path) -> Result<Option<Self>, Error> {
        match Self::lock(directory) {
            Err(Error::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn lock(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("lock");
        let lock = || -> io::Result<File> {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            // flock(2), as host-local: released by the kernel when the process dies.
            file.lock()?;
            Ok(file)
        };
        let file = lock().map_err(|source| failed("lock", &path, source))?;
        Ok(Self { directory: directory.to_owned(), _lock: Some(file) })
    }

    /// Opens the directory, if there is one, to look into it only: nothing is made, and writers wait (C4, S1).
    pub(super) fn open_to_read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join("lock");
        let lock = match File::open(&path).and_then(|file| file.lock_shared().map(|()| file)) {
            Ok(file) => Some(file),
            // Without a lock file there never was a writer, but there may be a directory made by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed("lock", &path, source)),
        };
        Ok(directory.is_dir().then(|| Self { directory: directory.to_owned(), _lock: lock }))
    }

    /// All addresses in use, with the text of their files.
    pub(super) fn reservations(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let mut reservations = BTreeMap::new();
        for address in self.addresses()? {
            let text = self.reservation(address)?;
            if let Some(text) = text.filter(|text| !names_nobody(text)) {
                reservations.insert(address, text);
            }
        }
        Ok(reservations)
    }

    /// The addresses there are files for.
    fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let list = || -> io::Result<Vec<IpAddr>> {
            let names = fs::read_dir(&self.directory)?.map(|entry| entry.map(|entry| entry.file_name()));
            let addresses = names.filter_map(|name| name.map(|name| address_of_file(name.to_str()?)).transpose());
            addresses.collect()
        };
        list().map_err(|source| failed("list", &self.directory, source))
    }

    /// The text of an address's file; one that was removed by hand just now is free.
    fn reservation(&self, address: IpAddr) -> Result<Option<String>, Error> {
        let path = self.path_of(address);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    /// Writes down that an address is in use; false if it is already.
    ///
    /// The file appears whole or not at all: a plugin killed in between leaves no address without an owner.
    pub(super) fn reserve(&self, address: IpAddr, owner: Owner<'_>) -> Result<bool, Error> {
        let (scratch, path) = (self.directory.join(SCRATCH), self.path_of(address));
        let write = || -> io::Result<bool> {
            let mut file = create_scratch(&scratch)?;
            file.write_all(owner.content().as_bytes())?;
            let linked = match fs::hard_link(&scratch, &path) {
                Ok(()) => true,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                // Nobody else can be about to fill it: that needs the lock.
                Err(_) if names_nobody(&String::from_utf8_lossy(&fs::read(&path)?)) => {
                    return fs::rename(&scratch, &path).map(|()| true);
                }
                Err(_) => false,
            };
            fs::remove_file(&scratch)?;
            Ok(linked)
        };
        write().map_err(|source| failed("reserve", &path, source))
    }

    /// Frees an address if it is the owner's.
    pub(super) fn release(&self, address: IpAddr, owner: Owner<'_>) -> Result<(), Error> {
        match self.reservation(address)? {
            Some(text) if is_of(&text, owner) => remove(&self.path_of(address)),
            _ => Ok(()),
        }
    }

    /// Frees every address of an owner.
    pub(super) fn release_all(&self, owner: Owner<'_>) -> Result<(), Error> {
        of_owner(&self.reservations()?, owner).into_iter().try_for_each(|address| remove(&self.path_of(address)))
    }

    /// Frees every address whose holder is not among the attachments that are still valid, and what a killed plugin
    /// left. A file that names nobody, as host-local leaves when it is killed, is nobody's. Goes on after a failure.
    pub(super) fn retain(&self, valid: &ValidAttachments, failures: &mut Teardown) -> Result<(), Error> {
        for address in self.addresses()? {
            let stale = self.reservation(address).map(|text| text.is_some_and(|text| !valid.contains_holder(&text)));
            failures.step(stale.and_then(|stale| if stale { remove(&self.path_of(address)) } else { Ok(()) }));
        }
        remove(&self.directory.join(SCRATCH))
    }

    /// The address last taken from a set of ranges. A damaged file is as good as none.
    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_reserved_path(set)).ok()?.trim().parse().ok()
    }

    /// Writes over what is there: to truncate a file first costs some file systems milliseconds, with the lock held.
    pub(super) fn set_last_reserved(&self, set: usize, address: IpAddr) -> Result<(), Error> {
        let (path, text) = (self.last_reserved_path(set), address.to_string());
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            let length = text.len() as u64;
            if file.metadata()?.len() > length {
                file.set_len(length)?;
            }
            Ok(())
        };
        write().map_err(|source| failed("write", &path, source))
    }

    fn last_reserved_path(&self, set: usize) -> PathBuf {
        self.directory.join(format!("last_reserved_ip.{set}"))
    }

    /// The canonical text form: host-local's readers compare names.
    fn path_of(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }
}

/// Whether the text of a reservation names no container.
fn names_nobody(text: &str) -> bool {
    holder(text).0.is_empty()
}

/// Whether the text of a reservation names this owner.
pub(super) fn is_of(text: &str, owner: Owner<'_>) -> bool {
    holder(text) == (owner.container_id, Some(owner.ifname))
}

/// The addresses of an owner. Files of old versions of host-local name the container only, and count if there are no
/// others.
pub(super) fn of_owner(reservations: &BTreeMap<IpAddr, String>, owner: Owner<'_>) -> Vec<IpAddr> {
    let held_by = |who: (&str, Option<&str>)| -> Vec<IpAddr> {
        reservations.iter().filter(|(_, text)| holder(text) == who).map(|(address, _)| *address).collect()
    };
    let own = held_by((owner.container_id, Some(owner.ifname)));
    if own.is_empty() { held_by((owner.container_id, None)) } else { own }
}

/// A new scratch file. One that a killed plugin left may be an address's file as well by now, so it is not written
/// into.
fn create_scratch(path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        other => other,
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, source)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Store { doing, path: path.to_owned(), source }
}
