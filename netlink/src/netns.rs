//! Network namespaces: opening, making, entering.

use std::{
    fs::{self, File},
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, fstatfs},
};

use crate::error::{During, Failure, Result};

/// Namespace of the calling *thread*; `/proc/self` would be that of the main thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";

/// NSFS_MAGIC of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace, kept alive for as long as this is open.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// Opens the namespace at `path`, such as `/run/netns/x` or `/proc/1/ns/net`.
    ///
    /// # Errors
    /// [`is_not_found`](crate::Error::is_not_found): there is no such path; EINVAL: it is no namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let open = || -> std::result::Result<Self, Failure> {
            let file = File::open(path)?;
            if fstatfs(&file)?.filesystem_type() != NSFS {
                let explanation = Some("it is not a namespace".to_owned());
                return Err(Failure::Kernel { errno: nix::libc::EINVAL, explanation });
            }
            Ok(Self { file })
        };
        open().during("open network namespace", path.display())
    }

    /// The namespace the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// Makes a namespace without a name; it goes away with this value and what else holds it.
    ///
    /// # Errors
    /// No CAP_SYS_ADMIN, or too many namespaces.
    pub fn create() -> Result<Self> {
        on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).during("create", "a network namespace")?;
            Self::current()
        })
    }

    /// Makes a namespace under a name, as `ip netns add` does; it stays until [`Netns::delete_named`].
    ///
    /// # Errors
    /// [`is_exists`](crate::Error::is_exists): the name is taken.
    pub fn create_named(name: &str) -> Result<Self> {
        let path = named(name);
        let prepare = || -> std::result::Result<(), Failure> {
            fs::create_dir_all(NAMED)?;
            File::create_new(&path)?;
            Ok(())
        };
        prepare().during("create network namespace", name)?;
        let result = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).during("create network namespace", name)?;
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .during("name network namespace", name)?;
            Self::current()
        });
        if result.is_err() {
            // The error at hand matters more than one of the clean-up.
            let _ = fs::remove_file(&path);
        }
        result
    }

    /// Takes a name away, as `ip netns delete` does; one that is gone is fine.
    ///
    /// # Errors
    /// The name cannot be unmounted or removed.
    pub fn delete_named(name: &str) -> Result<()> {
        let path = named(name);
        // EINVAL: nothing is mounted there, the file alone was left.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error).during("delete network namespace", name),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).during("delete network namespace", name)
            }
            _ => Ok(()),
        }
    }

    /// What tells two namespaces apart: device and inode.
    ///
    /// # Errors
    /// The kernel refused to say (unusual).
    pub fn id(&self) -> Result<(u64, u64)> {
        let metadata = self.file.metadata().during("identify", "a network namespace")?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `work` in this namespace, on a thread of its own, and hands on a panic of it.
    ///
    /// # Errors
    /// The namespace could not be entered; `work` did not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_new_thread(|| {
            // The thread ends with the work, so there is nothing to come back to.
            setns(&self.file, CloneFlags::CLONE_NEWNET).during("enter", "a network namespace")?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn named(name: &str) -> PathBuf {
    Path::new(NAMED).join(name)
}

fn on_new_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, work)
            .during("start", "a thread")?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// Puts the calling thread into a network namespace until it is dropped.
///
/// Not `Send`: it must be dropped on the thread it was made on. For sockets it is enough to hold it while they are
/// opened. Do not hold it across an `.await`.
#[derive(Debug)]
pub struct NetnsGuard {
    home: File,
    /// Namespaces belong to threads.
    _not_send: PhantomData<*const ()>,
}

impl NetnsGuard {
    /// Enters.
    ///
    /// # Errors
    /// It is no network namespace (EINVAL), or CAP_SYS_ADMIN is missing. The thread is then where it was.
    pub fn enter(netns: &impl AsFd) -> Result<Self> {
        let home = File::open(OWN).during("open", OWN)?;
        setns(netns, CloneFlags::CLONE_NEWNET).during("enter", "a network namespace")?;
        Ok(Self { home, _not_send: PhantomData })
    }
}

impl Drop for NetnsGuard {
    fn drop(&mut self) {
        // A thread that went on in the wrong namespace would change someone else's network.
        setns(&self.home, CloneFlags::CLONE_NEWNET).expect("the namespace we came from can be entered again");
    }
}
