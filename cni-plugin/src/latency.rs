//! Tells the agent how long ADD took, for its metrics. Nobody listening is no error, and nothing waits for it.

use std::{os::unix::net::UnixDatagram, path::Path, time::Duration};

/// Name of the agent's socket, beside the directory of the networks' reservations.
const SOCKET: &str = "added.sock";

/// Sends `success 12345` or `error 12345`, in microseconds.
pub(crate) fn tell(data_dir: &Path, took: Duration, succeeded: bool) {
    let Some(socket) = data_dir.parent().map(|directory| directory.join(SOCKET)) else { return };
    let outcome = if succeeded { "success" } else { "error" };
    let Ok(sender) = UnixDatagram::unbound() else { return };
    if sender.set_nonblocking(true).is_ok() {
        let _ = sender.send_to(format!("{outcome} {}", took.as_micros()).as_bytes(), socket);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, time::Duration};

    use super::{SOCKET, tell};

    #[test]
    fn the_agent_is_told_and_its_absence_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("networks");
        tell(&data, Duration::from_millis(1), true);
        let agent = UnixDatagram::bind(directory.path().join(SOCKET)).unwrap();
        tell(&data, Duration::from_millis(12), false);
        let mut told = [0; 64];
        let length = agent.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"error 12000");
    }
}
