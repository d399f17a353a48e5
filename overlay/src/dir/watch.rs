//! Turns changes of the directory into snapshots.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::watch;
use tracing::warn;

use super::store::{Stamp, Store, is_visible};
use crate::lease::{LeaseError, LeaseSnapshot, LeaseTable};

/// How often the directory is listed although nothing was reported: inotify loses events when its queue is full, and says
/// nothing when the directory itself is replaced. Also how soon the thread notices that nobody listens any more.
const SAFETY_INTERVAL: Duration = Duration::from_secs(1);

type Snapshots = watch::Sender<Option<Arc<LeaseSnapshot>>>;

/// Reads the leases once and then after every change, until the last receiver is dropped.
pub(super) fn start(store: Store) -> Result<watch::Receiver<Option<Arc<LeaseSnapshot>>>, LeaseError> {
    store.create()?;
    let directory = store.subnets_dir();
    let news = Arc::new(Mutex::new(News::default()));
    // One pending note is enough: `news` says what of.
    let (note, notes) = mpsc::sync_channel(1);
    let (noted, parent) = (Arc::clone(&news), directory.clone());
    let callback = move |event: notify::Result<Event>| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).take_in(&parent, event);
        // Full: a reading is due anyway. Disconnected: the thread below has ended.
        let _ = note.try_send(());
    };
    let failed = |doing: &str, source: notify::Error| LeaseError::Backend {
        doing: format!("{doing} {}", directory.display()),
        source: source.into(),
    };
    let mut watcher = notify::recommended_watcher(callback).map_err(|error| failed("start watching", error))?;
    // Before the first reading, or a change in between would be missed.
    watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(|error| failed("watch", error))?;

    let mut files = Files { store, table: LeaseTable::default(), stamps: BTreeMap::new() };
    files.read_all()?;
    let (snapshots, receiver) = watch::channel(Some(Arc::new(files.table.snapshot())));
    let reader = Reader { files, watcher, directory, news, snapshots };
    thread::Builder::new().name("weft-leases".into()).spawn(move || reader.run(&notes)).map_err(|source| {
        LeaseError::Backend { doing: "start the thread that reads leases".into(), source: source.into() }
    })?;
    Ok(receiver)
}

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Anything may have changed.
    all: bool,
    /// Files that changed.
    names: BTreeSet<String>,
}

impl News {
    fn take_in(&mut self, directory: &Path, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.all = true,
            Ok(event) if is_change(&event) => {
                for path in &event.paths {
                    match path.file_name().filter(|_| path.parent() == Some(directory)) {
                        Some(name) => _ = self.names.insert(name.to_string_lossy().into_owned()),
                        // The directory itself.
                        None => self.all = true,
                    }
                }
            }
            Ok(_) => {}
            Err(_) => self.all = true,
        }
    }
}

/// Reading a file opens it, which is an event of its own: only what changes names or contents counts.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The leases as they were last read. A change costs the reading of one file, however many there are.
struct Files {
    store: Store,
    table: LeaseTable,
    /// Of files that need not be read again as long as they look the same.
    stamps: BTreeMap<String, Stamp>,
}

impl Files {
    /// Reads what looks other than it did. True if there is news.
    fn read_all(&mut self) -> Result<bool, LeaseError> {
        let names: BTreeSet<String> = self.store.names()?.into_iter().collect();
        self.stamps.retain(|name, _| names.contains(name));
        let mut changed = self.table.retain(|name| names.contains(name));
        for name in &names {
            let stamp = self.store.stamp(name);
            if stamp.is_none() || stamp.as_ref() != self.stamps.get(name) {
                changed |= self.read(name);
            }
        }
        Ok(changed)
    }

    fn read(&mut self, name: &str) -> bool {
        // Before the file is read: what is written meanwhile is seen the next time.
        let stamp = self.store.stamp(name);
        match self.store.read(name) {
            Some(read) => {
                match stamp.filter(|_| read.is_ok()) {
                    Some(stamp) => _ = self.stamps.insert(name.to_owned(), stamp),
                    None => _ = self.stamps.remove(name),
                }
                self.table.set(name, read)
            }
            None => {
                self.stamps.remove(name);
                self.table.remove(name)
            }
        }
    }
}

struct Reader {
    files: Files,
    watcher: RecommendedWatcher,
    directory: PathBuf,
    news: Arc<Mutex<News>>,
    snapshots: Snapshots,
}

impl Reader {
    fn run(mut self, notes: &Receiver<()>) {
        let mut failing = false;
        loop {
            let news = match notes.recv_timeout(SAFETY_INTERVAL) {
                Ok(()) => std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(RecvTimeoutError::Timeout) => {
                    // The same directory again is a no-op for inotify; a new one under the old name is watched from now.
                    let _ = self.watcher.watch(&self.directory, RecursiveMode::NonRecursive);
                    News { all: true, ..News::default() }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.snapshots.is_closed() {
                return;
            }
            match self.read(&news) {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    warn!(%error, "leases cannot be read; the last ones stay");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    fn read(&mut self, news: &News) -> Result<(), LeaseError> {
        // A directory that is gone says nothing about the nodes: only a listing of one that exists does.
        let directory = &self.directory;
        std::fs::metadata(directory).map_err(|source| LeaseError::File {
            doing: "look at",
            path: directory.clone(),
            source,
        })?;
        let mut changed = news.all && self.files.read_all()?;
        for name in news.names.iter().filter(|name| is_visible(name)) {
            changed |= self.files.read(name);
        }
        if changed {
            self.files.table.snapshot().publish(&self.snapshots);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind, RemoveKind, RenameMode};

    use super::*;

    #[test]
    fn events_name_the_files_to_read() {
        let directory = Path::new("/leases/subnets");
        let news = |kind, paths: &[&str]| {
            let event = paths.iter().fold(Event::new(kind), |event, path| event.add_path(path.into()));
            let mut news = News::default();
            news.take_in(directory, Ok(event));
            (news.all, news.names.into_iter().collect::<Vec<_>>())
        };
        let file = "/leases/subnets/10.5.1.0-24";
        let named = (false, vec!["10.5.1.0-24".to_owned()]);
        let rename = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        assert_eq!(news(EventKind::Create(CreateKind::File), &[file]), named);
        assert_eq!(news(EventKind::Access(AccessKind::Close(AccessMode::Write)), &[file]), named);
        assert_eq!(news(rename, &["/leases/subnets/.new", file]).1, [".new", "10.5.1.0-24"]);
        assert_eq!(news(EventKind::Access(AccessKind::Open(AccessMode::Read)), &[file]), (false, vec![]));
        assert_eq!(news(EventKind::Remove(RemoveKind::Folder), &["/leases/subnets"]), (true, vec![]));
        let mut lost = News::default();
        lost.take_in(directory, Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(lost.all);
    }

    #[test]
    fn a_change_costs_one_file() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().to_owned());
        store.create().unwrap();
        let write = |name: &str, host: u8| {
            let text = format!(r#"{{"PublicIP":"192.0.2.{host}"}}"#);
            std::fs::write(root.path().join("subnets").join(name), text).unwrap();
        };
        let mut files = Files { store, table: LeaseTable::default(), stamps: BTreeMap::new() };
        write("10.5.1.0-24", 1);
        write("10.5.2.0-24", 2);
        assert!(files.read_all().unwrap());
        write("10.5.1.0-24", 3);
        write("10.5.2.0-24", 4);
        assert!(files.read("10.5.2.0-24"));
        let addresses = |files: &Files| {
            let leases = files.table.snapshot().leases;
            leases.iter().map(|lease| lease.attributes.public_ip.unwrap().octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!(addresses(&files), [1, 4], "only the one that was named");
        assert!(files.read_all().unwrap());
        assert_eq!(addresses(&files), [3, 4]);
        std::fs::remove_file(root.path().join("subnets/10.5.1.0-24")).unwrap();
        assert!(files.read("10.5.1.0-24") && !files.read("10.5.1.0-24") && !files.read_all().unwrap());
        assert_eq!(addresses(&files), [4]);
    }
}
