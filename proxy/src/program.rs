//! Runs a program of the system with some input, and reads what it prints.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    thread,
};

/// What a program left behind. It need not have succeeded.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Runs `program` in the network namespace of the calling thread, writes the pieces of `input` to it, and hands what it
/// prints to `read` as it comes.
///
/// # Errors
/// It could not be started (`NotFound`: it is not installed), or its output could not be read.
pub(crate) fn run<T>(
    program: &str,
    arguments: &[&str],
    input: &[&str],
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<T>,
) -> io::Result<(Finished, T)> {
    let mut child = Command::new(program)
        .args(arguments)
        // Callers read its messages.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut errors = child.stderr.take().expect("stderr is piped");
    let (read, stderr) = thread::scope(|scope| {
        // From threads of their own, so that the program never waits for us to read while we wait for it to read. A broken
        // pipe means that it gave up, and it says why.
        scope.spawn(move || drop(write_all(stdin, input)));
        let stderr = scope.spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        (read(BufReader::new(stdout)), stderr.join().expect("the reader of stderr does not panic"))
    });
    let status = child.wait()?;
    Ok((Finished { status, stderr: stderr? }, read?))
}

/// For `run`: hands each line to `each`, without its end. Lines that are not UTF-8 are not ours and are left out.
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

fn write_all(mut to: impl Write, pieces: &[&str]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| to.write_all(piece.as_bytes()))
}
