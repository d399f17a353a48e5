//! Kernel parameters under `/proc/sys`.
//!
//! `/proc/sys/net` shows the parameters of the network namespace the calling thread is in when it opens the file.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::Path,
};

use crate::error::{During, Result};

const SYSCTLS: &str = "/proc/sys";
/// The same, mounted by a pod to write to: in a container without privileges `/proc/sys` is read-only.
const OF_A_POD: &str = "/host/proc/sys";

/// Whether [`set`] had to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It had another value before.
    Yes,
    /// It had the value already.
    No,
}

/// The value of a parameter, such as `net/ipv4/ip_forward`, without the final newline.
///
/// # Errors
/// [`is_not_found`](crate::Error::is_not_found): the kernel or the interface has no such parameter.
pub fn get(parameter: &str) -> Result<String> {
    let mut value = fs::read_to_string(path(parameter)).during("read sysctl", parameter)?;
    value.truncate(value.trim_end().len());
    Ok(value)
}

/// Gives a parameter a value, writing only if it has another: writing some of them has effects of its own, and a
/// read-only `/proc/sys` does not matter when all is as it should be.
///
/// # Errors
/// As [`get`]; or it cannot be written: also not below `/host/proc/sys`, where pods mount it.
pub fn set(parameter: &str, value: &str) -> Result<Changed> {
    if get(parameter)? == value {
        return Ok(Changed::No);
    }
    write(&[Path::new(SYSCTLS), Path::new(OF_A_POD)], parameter, value)
        .during("write sysctl", format_args!("{parameter} = {value}"))?;
    Ok(Changed::Yes)
}

/// Writes below the first directory; below the next one if that is read-only and the next has the parameter.
fn write(directories: &[&Path], parameter: &str, value: &str) -> std::io::Result<()> {
    let Some((directory, others)) = directories.split_first() else { return Err(ErrorKind::NotFound.into()) };
    let open = |directory: &Path| OpenOptions::new().write(true).open(directory.join(parameter));
    match open(directory).and_then(|mut file| file.write_all(value.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => match write(others, parameter, value) {
            Err(other) if other.kind() == ErrorKind::NotFound => Err(error),
            result => result,
        },
        result => result,
    }
}

fn path(parameter: &str) -> String {
    format!("{SYSCTLS}/{parameter}")
}

#[cfg(test)]
mod tests {
    use std::{env, io, process, thread};

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    const NONE: Option<&str> = None;

    /// Two directories of parameters, the first of which is read-only, where only the calling thread sees them.
    fn mount_directories(root: &Path) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(NONE, root, Some("tmpfs"), MsFlags::empty(), NONE)?;
        let [first, second] = ["first", "second"].map(|name| root.join(name));
        for (directory, parameter) in [(&first, "both"), (&second, "both"), (&first, "one")] {
            fs::create_dir_all(directory)?;
            fs::write(directory.join(parameter), "0")?;
        }
        mount(Some(&first), &first, NONE, MsFlags::MS_BIND, NONE)?;
        mount(NONE, &first, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)?;
        Ok(())
    }

    fn try_both(root: &Path) -> io::Result<()> {
        mount_directories(root)?;
        let [first, second] = ["first", "second"].map(|name| root.join(name));
        write(&[&first, &second], "both", "1")?;
        let now = |directory: &Path| fs::read_to_string(directory.join("both"));
        assert_eq!((now(&first)?.as_str(), now(&second)?.as_str()), ("0", "1"));
        // Nothing of the kind in the next one, and no next one: what is told is why the first was no good.
        let (first, second) = (first.as_path(), second.as_path());
        for (directories, parameter) in [(vec![first, second], "one"), (vec![first], "both")] {
            let error = write(&directories, parameter, "1").map_err(|error| error.kind());
            assert_eq!(error, Err(ErrorKind::ReadOnlyFilesystem), "{parameter}");
        }
        Ok(())
    }

    #[test]
    fn a_read_only_proc_leads_to_what_a_pod_mounted() -> io::Result<()> {
        let root = env::temp_dir().join(format!("weft-sysctl-{}", process::id()));
        fs::create_dir_all(&root)?;
        let tried = thread::scope(|scope| scope.spawn(|| try_both(&root)).join());
        fs::remove_dir(&root)?;
        tried.map_err(|_| io::Error::other("see the message above"))?
    }
}
