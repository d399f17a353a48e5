//! Programs and the lock, in a network namespace of each test's own.

use std::{
    process::Child,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use weft_netlink::Netns;

use super::*;

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Not long.
const SHORT: Duration = Duration::from_millis(50);

fn in_new_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    Netns::create().unwrap().run(test).unwrap()
}

/// A program that holds the lock until its stdin is closed, as one whose agent was killed.
fn left_behind() -> Child {
    let lock = Lock::take().unwrap();
    lock.hand_on().unwrap();
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn all_of_the_input_is_there_when_the_program_starts() {
    let much = "0123456789abcdef".repeat(16 * 1024);
    in_new_namespace(|| {
        let mut size = String::new();
        // The size of what it will read, before it has read any.
        let arguments = ["-L", "-c", "%s", "/dev/stdin"];
        let (done, ()) = change("stat", &arguments, &["a\n", &much, "z"], lines(|line| size.push_str(line))).unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(size, (much.len() + 3).to_string());
        let mut read = Vec::new();
        change("cat", &[], &["a\n", "b\n"], lines(|line| read.push(line.to_owned()))).unwrap();
        assert_eq!(read, ["a", "b"]);
    });
}

#[test]
fn who_changes_rules_waits_for_a_program_whose_agent_is_gone() {
    in_new_namespace(|| {
        let mut program = left_behind();
        assert!(Lock::take_within(SHORT).unwrap_err().to_string().contains("another program has been changing rules"));
        run("true", &[], lines(|_| {})).expect("who only reads need not wait");
        let netns = Netns::current().unwrap();
        let (done, ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                netns.run(|| change("true", &[], &[], lines(|_| {})).unwrap()).unwrap();
                done.send(Instant::now()).unwrap();
            });
            assert!(ended.recv_timeout(SHORT).is_err(), "it did not wait");
            drop(program.stdin.take());
            ended.recv_timeout(LONG).expect("it goes on when the other has ended");
        });
        program.wait().unwrap();
        wait_for_others().unwrap();
    });
}

#[test]
fn other_network_namespaces_are_not_waited_for() {
    in_new_namespace(|| {
        let mut program = left_behind();
        in_new_namespace(|| change("true", &[], &[], lines(|_| {})).unwrap());
        drop(program.stdin.take());
        program.wait().unwrap();
    });
}

#[test]
fn a_program_that_is_not_there_is_not_found() {
    let error = in_new_namespace(|| change("weft-no-such-program", &[], &["x"], lines(|_| {})).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    in_new_namespace(|| wait_for_others().unwrap());
}
