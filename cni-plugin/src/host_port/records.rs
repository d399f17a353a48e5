//! Which host ports the pods of this node have, in files beside the kernel's rules: for the agent, which puts back what somebody
//! flushed. A file for each attachment, written before its rules and removed after them, under a lock that whoever puts rules
//! back holds too: so none is put back for a pod whose DEL has been.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, Holder},
    mapping::PortMapBackend,
};
use crate::{
    attachment::AttachmentId,
    error::{Code, Error},
    ipam::Owner,
};

/// Their directory, beside those of the networks.
const DIRECTORY: &str = ".hostports";

const LOCK: &str = "lock";

/// Where a record is written before it gets its name. No record has this name.
const SCRATCH: &str = "weft-cni.tmp";

/// What one attachment has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Record {
    pub(super) backend: PortMapBackend,
    /// One at least, all of one holder.
    pub(super) claims: Vec<Claim>,
}

/// The directory, locked for as long as this lives.
pub(super) struct Records {
    directory: PathBuf,
    _lock: File,
}

impl Records {
    /// Opens the directory, making it if need be, and waits for the lock.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let directory = data_dir.join(DIRECTORY);
        let lock = || {
            fs::create_dir_all(&directory)?;
            let open =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK));
            open.and_then(|file| file.lock().map(|()| file))
        };
        let lock = lock().map_err(|error| failed("lock", &directory, &error))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Opens the directory if there is one.
    pub(super) fn open_existing(data_dir: &Path) -> Result<Option<Self>, Error> {
        data_dir.join(DIRECTORY).is_dir().then(|| Self::open(data_dir)).transpose()
    }

    /// Opens the directory if there is a record of that attachment in it. Most have none.
    pub(super) fn open_if_of(data_dir: &Path, id: AttachmentId<'_>) -> Result<Option<Self>, Error> {
        let AttachmentId { network, owner: Owner { container_id, ifname } } = id;
        let record = data_dir.join(DIRECTORY).join(name(network, container_id, ifname));
        record.exists().then(|| Self::open(data_dir)).transpose()
    }

    /// Writes a record, whole or not at all.
    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let Some(Holder { network, container_id, ifname }) = record.claims.first().map(|claim| &claim.holder) else {
            return Ok(());
        };
        let (scratch, path) = (self.directory.join(SCRATCH), self.directory.join(name(network, container_id, ifname)));
        let text = serde_json::to_vec(record).expect("it has no maps with keys that are no texts");
        fs::write(&scratch, text)
            .and_then(|()| fs::rename(&scratch, &path))
            .map_err(|error| failed("write", &path, &error))
    }

    /// Removes the records of some holders.
    pub(super) fn remove(&self, whose: &dyn Fn(&Holder) -> bool) -> Result<(), Error> {
        let mut theirs = self.paths()?.into_iter().filter(|(holder, _)| whose(holder));
        theirs.try_for_each(|(_, path)| fs::remove_file(&path).map_err(|error| failed("remove", &path, &error)))
    }

    /// All records, the oldest first. One that cannot be read, as a power failure leaves it, is none.
    pub(super) fn all(&self) -> Result<Vec<Record>, Error> {
        let mut found = Vec::new();
        for (_, path) in self.paths()? {
            let read = || -> io::Result<_> { Ok((fs::metadata(&path)?.modified()?, fs::read(&path)?)) };
            let (modified, text) = read().map_err(|error| failed("read", &path, &error))?;
            found.extend(serde_json::from_slice::<Record>(&text).ok().map(|record| (modified, record)));
        }
        found.sort_by_key(|(modified, _)| *modified);
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    fn paths(&self) -> Result<Vec<(Holder, PathBuf)>, Error> {
        let list = || -> io::Result<Vec<_>> {
            let entries = fs::read_dir(&self.directory)?.collect::<io::Result<Vec<_>>>()?;
            let holder = |entry: &fs::DirEntry| holder(entry.file_name().to_str()?);
            Ok(entries.iter().filter_map(|entry| Some((holder(entry)?, entry.path()))).collect())
        };
        list().map_err(|error| failed("list", &self.directory, &error))
    }
}

/// None of the parts may have a colon in it (R1.6), and together they are shorter than a file's name may be ([`Holder::of`]).
fn name(network: &str, container_id: &str, ifname: &str) -> String {
    format!("{network}:{container_id}:{ifname}")
}

/// Whose record has that name; `None`: it is none.
fn holder(name: &str) -> Option<Holder> {
    let parts: Vec<_> = name.split(':').collect();
    let [network, container_id, ifname] = parts[..] else { return None };
    Some(Holder { network: network.into(), container_id: container_id.into(), ifname: ifname.into() })
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("{doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_port::mapping::{Masquerade, Protocol};

    fn record(container_id: &str) -> Record {
        let holder = Holder { network: "weft".into(), container_id: container_id.into(), ifname: "eth0".into() };
        let claim = Claim {
            host: "192.0.2.1".parse().unwrap(),
            protocol: Protocol::Udp,
            host_port: 53,
            pod: "10.244.1.5:5353".parse().unwrap(),
            masquerade: Masquerade::WhereNeeded,
            holder,
            order: 0,
        };
        Record { backend: PortMapBackend::Iptables, claims: vec![claim] }
    }

    #[test]
    fn records_are_read_back_in_their_order_and_damaged_ones_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        assert!(Records::open_existing(data_dir).unwrap().is_none());
        let records = Records::open(data_dir).unwrap();
        for id in ["b", "a"] {
            records.write(&record(id)).unwrap();
            // Time stamps of files are as coarse as the kernel's ticks.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for (name, text) in [("weft:c:eth0", ""), ("weft:d:eth0", "\0\0"), ("weft-cni.tmp", "{}"), ("a:b", "{}")] {
            fs::write(data_dir.join(".hostports").join(name), text).unwrap();
        }
        assert_eq!(records.all().unwrap(), [record("b"), record("a")]);
        drop(records);
        let id = |container_id| AttachmentId { network: "weft", owner: Owner { container_id, ifname: "eth0" } };
        assert!(Records::open_if_of(data_dir, id("x")).unwrap().is_none());
        let records = Records::open_if_of(data_dir, id("a")).unwrap().unwrap();
        records.remove(&|holder| holder.container_id != "b").unwrap();
        assert_eq!(records.all().unwrap(), [record("b")]);
    }
}
