//! Which iptables have rules of ours. Its lock is held while rules are looked at and changed: between a look and a change
//! another plugin must neither add a rule to a chain that is to go, nor take a chain away that a rule is to be added to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::programs::Programs;
use crate::error::{Code, Error};

/// Its file, beside the directories of the networks: the rules of all networks stand in the same chains.
const FILE: &str = ".hostports-iptables";

/// The open, locked file: a line for each of the [`Programs`]. Empty: there are no rules.
pub(super) struct Ledger {
    file: File,
    path: PathBuf,
    programs: Vec<Programs>,
}

impl Ledger {
    /// Opens it, making it if need be, and waits for the lock.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        let open = || {
            fs::create_dir_all(data_dir)?;
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            lock(file)
        };
        let (file, text) = open().map_err(|error| failed("lock", &path, &error))?;
        let programs = text.lines().filter_map(Programs::named).collect();
        Ok(Self { file, path, programs })
    }

    /// The same, if it says that there are rules.
    pub(super) fn open_noted(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = data_dir.join(FILE);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > 0 => Self::open(data_dir).map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &Programs> {
        self.programs.iter()
    }

    /// Those with rules of one family. Once there are some, others join them, for order among rules of several is chance.
    pub(super) fn of_family(&self, v4: bool) -> Option<&Programs> {
        self.programs().find(|programs| programs.is_v4() == v4)
    }

    /// Notes that there are rules from now on.
    pub(super) fn note(&mut self, programs: &Programs) -> Result<(), Error> {
        if self.programs.contains(programs) {
            return Ok(());
        }
        let line = format!("{}\n", programs.name());
        self.file.write_all(line.as_bytes()).map_err(|error| failed("write", &self.path, &error))?;
        self.programs.push(programs.clone());
        Ok(())
    }

    /// Notes that there are none any more.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        self.programs.clear();
        self.file.set_len(0).map_err(|error| failed("write", &self.path, &error))
    }
}

fn lock(mut file: File) -> io::Result<(File, String)> {
    file.lock()?;
    // The programs we start hold the lock as well, to their own end: of a plugin that is killed, one may be left that is
    // about to write rules, and DEL must not look before it has.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((file, text))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("{doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_8_what_is_noted_is_there_until_it_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("networks");
        assert!(Ledger::open_noted(&data_dir).unwrap().is_none());
        let named = |name| Programs::named(name).unwrap();
        let mut ledger = Ledger::open(&data_dir).unwrap();
        for name in ["iptables-legacy", "ip6tables", "iptables-legacy"] {
            ledger.note(&named(name)).unwrap();
        }
        drop(ledger);
        let mut ledger = Ledger::open_noted(&data_dir).unwrap().unwrap();
        assert_eq!(ledger.programs, [named("iptables-legacy"), named("ip6tables")]);
        assert_eq!(ledger.of_family(false), Some(&named("ip6tables")));
        ledger.clear().unwrap();
        drop(ledger);
        assert!(Ledger::open_noted(&data_dir).unwrap().is_none());
        assert_eq!(Ledger::open(&data_dir).unwrap().of_family(true), None);
    }
}
