//! Runs a program of the system with some input, and reads what it prints.

mod lock;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, Write},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    thread,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use self::lock::Lock;

/// What a program left behind. It need not have succeeded.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Runs `program`, which changes nothing, in the network namespace of the calling thread, and hands what it prints to `read`
/// as it comes.
///
/// # Errors
/// It could not be started (`NotFound`: it is not installed), or its output could not be read.
pub(crate) fn run<T>(
    program: &str,
    arguments: &[&str],
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<T>,
) -> io::Result<(Finished, T)> {
    start(program, arguments, &[], None, read)
}

/// Runs `program`, which changes rules of the network namespace of the calling thread as the pieces of `input` say, and hands
/// what it prints to `read` as it comes.
///
/// # Errors
/// As [`run`], or [`wait_for_others`] has one.
pub(crate) fn change<T>(
    program: &str,
    arguments: &[&str],
    input: &[&str],
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<T>,
) -> io::Result<(Finished, T)> {
    start(program, arguments, input, Some(Lock::take()?), read)
}

/// Waits until nothing that was started with [`change`] in this network namespace runs any more, by whichever process: before
/// rules are read that are then believed to stay as they are.
///
/// # Errors
/// It still runs after 30 s.
pub(crate) fn wait_for_others() -> io::Result<()> {
    Lock::take().map(drop)
}

fn start<T>(
    program: &str,
    arguments: &[&str],
    input: &[&str],
    lock: Option<Lock>,
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<T>,
) -> io::Result<(Finished, T)> {
    lock.as_ref().map(Lock::hand_on).transpose()?;
    let mut child = Command::new(program)
        .args(arguments)
        // Callers read its messages.
        .env("LC_ALL", "C")
        .stdin(file_of(input)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // From here on it is the program's alone.
    drop(lock);
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut errors = child.stderr.take().expect("stderr is piped");
    let (read, stderr) = thread::scope(|scope| {
        // From a thread of its own, so that the program never waits for us to read the one while we wait for the other.
        let stderr = scope.spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        (read(BufReader::new(stdout)), stderr.join().expect("the reader of stderr does not panic"))
    });
    let status = child.wait()?;
    Ok((Finished { status, stderr: stderr? }, read?))
}

/// The whole input before the program starts: through a pipe it would get half of it if we were killed meanwhile, and would
/// carry that out.
fn file_of(pieces: &[&str]) -> io::Result<Stdio> {
    if pieces.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(memfd_create("weft-input", MFdFlags::MFD_CLOEXEC)?);
    pieces.iter().try_for_each(|piece| file.write_all(piece.as_bytes()))?;
    file.rewind()?;
    Ok(file.into())
}

/// For `run` and `change`: hands each line to `each`, without its end. Lines that are not UTF-8 are not ours and are left out.
pub(crate) fn lines(mut each: impl FnMut(&str)) -> impl FnMut(BufReader<ChildStdout>) -> io::Result<()> {
    move |mut from| {
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            if let Ok(text) = std::str::from_utf8(&line) {
                each(text.trim_end_matches('\n'));
            }
            line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
