//! An agent that is killed while a program it started still runs.
//!
//! The agent is this test binary, run again for a test that does its work. The program is a script that says when it is called, and
//! calls the real one when it is told to.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weft_netlink::Netns;

use crate::support::PATIENCE;

/// Set for the agent.
const IS_AGENT: &str = "WEFT_TEST_IS_AGENT";

/// Whether this process is the agent, in a namespace made for it, or a run of all tests.
pub fn is_agent() -> bool {
    env::var_os(IS_AGENT).is_some()
}

/// A program whose agent was killed. It has done nothing yet.
pub struct LeftBehind(TempDir);

impl LeftBehind {
    /// Runs `test` in `netns` until it starts `program`, then kills it.
    pub fn by(test: &str, program: &str, netns: &Netns) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_script(&directory.path().join(program));
        let path = format!("{}:{}", directory.path().display(), env::var("PATH").unwrap());
        let start = || {
            let mut agent = Command::new(env::current_exe().unwrap());
            agent.args(["--exact", test]).env("PATH", path).env(IS_AGENT, "1").stdout(Stdio::null()).spawn().unwrap()
        };
        let mut agent = netns.run(start).unwrap();
        let left = Self(directory);
        left.wait_for("started");
        agent.kill().unwrap();
        agent.wait().unwrap();
        left
    }

    /// Does `next`, which may wait for the program, and lets the program do its work meanwhile.
    pub fn end_during(self, next: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let next = scope.spawn(next);
            // Time enough not to wait.
            let deadline = Instant::now() + Duration::from_millis(500);
            while !next.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            fs::write(self.file("go"), "").unwrap();
            self.wait_for("done");
        });
    }

    fn wait_for(&self, name: &str) {
        let (file, deadline) = (self.file(name), Instant::now() + PATIENCE);
        while !file.exists() {
            assert!(Instant::now() < deadline, "the program has not {name}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn write_script(path: &Path) {
    let script = "#!/bin/sh\ncd \"${0%/*}\" && touch started\nuntil [ -e go ]; do sleep 0.01; done\n\
                  PATH=${PATH#*:} \"${0##*/}\" \"$@\"\ntouch done\n";
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
