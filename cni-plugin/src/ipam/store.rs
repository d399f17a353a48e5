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

use super::{Error, Owner};

/// Where a reservation is written before it gets its name. No address has this name.
const SCRATCH: &str = "weft-cni.tmp";

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    _lock: File,
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
        Ok(Self { directory: directory.to_owned(), _lock: file })
    }

    /// All addresses in use, with the text of their files.
    pub(super) fn reservations(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let listing = fs::read_dir(&self.directory).map_err(|source| failed("list", &self.directory, source))?;
        let mut reservations = BTreeMap::new();
        for entry in listing {
            let entry = entry.map_err(|source| failed("list", &self.directory, source))?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_to_string(entry.path()) {
                Ok(text) => drop(reservations.insert(address, text)),
                // Removed by hand just now: free.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("read", &entry.path(), source)),
            }
        }
        Ok(reservations)
    }

    /// Writes down that an address is in use; false if it is already.
    ///
    /// The file appears whole or not at all: a plugin killed in between leaves no address without an owner.
    pub(super) fn reserve(&self, address: IpAddr, owner: Owner<'_>) -> Result<bool, Error> {
        let (scratch, path) = (self.directory.join(SCRATCH), self.path_of(address));
        let write = || -> io::Result<bool> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
            file.write_all(owner.content().as_bytes())?;
            let linked = match fs::hard_link(&scratch, &path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            fs::remove_file(&scratch)?;
            Ok(linked)
        };
        write().map_err(|source| failed("reserve", &path, source))
    }

    /// Frees an address if it is the owner's.
    pub(super) fn release(&self, address: IpAddr, owner: Owner<'_>) -> Result<(), Error> {
        let path = self.path_of(address);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == owner.content() => remove(&path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    /// Frees every address of an owner. Files of old versions of host-local name the container only.
    pub(super) fn release_all(&self, owner: Owner<'_>) -> Result<(), Error> {
        let reservations = self.reservations()?;
        let of = |content: &str| -> Vec<IpAddr> {
            reservations.iter().filter(|(_, text)| text.trim() == content).map(|(address, _)| *address).collect()
        };
        let mut own = of(&owner.content());
        if own.is_empty() {
            own = of(owner.container_id);
        }
        own.into_iter().try_for_each(|address| remove(&self.path_of(address)))
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

/// Whether the text of a reservation names this owner.
pub(super) fn is_of(text: &str, owner: Owner<'_>) -> bool {
    text.trim() == owner.content()
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
