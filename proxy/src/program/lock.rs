//! Who changes the rules of a network namespace.
//!
//! An agent can be killed while its `nft` or `iptables-restore` still runs. What that writes then is outdated, and may be all of a
//! table; an agent that has read the rules before would never hear of it. So the program itself holds a lock until it ends,
//! whatever becomes of the agent, and who starts anew waits for it.

use std::{
    fs::{File, TryLockError},
    io, thread,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The file to lock: the network namespace of the calling thread, which is just what the rules belong to. There is no path to
/// agree upon and nothing that could be left behind.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// More than a program takes for 10,000 Services on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries. Usually the first one succeeds.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock of the calling thread's network namespace. It is free again when this and every copy that programs got is closed.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn take() -> io::Result<Self> {
        Self::take_within(PATIENCE)
    }

    pub(super) fn take_within(patience: Duration) -> io::Result<Self> {
        // `NotFound` would be read as a program that is not installed.
        let file = File::open(NAMESPACE).map_err(|error| io::Error::other(format!("open {NAMESPACE}: {error}")))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::other(format!(
                        "another program has been changing rules of this network namespace for {} s",
                        patience.as_secs()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Lets programs that are started from now on hold it too. One that another thread starts in between gets it as well, which
    /// does no more than make somebody wait for that one.
    pub(super) fn hand_on(&self) -> io::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)?;
        Ok(())
    }
}
