//! Hears from `weft-cni` how long ADD took.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use tokio::net::UnixDatagram;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Metrics;

/// Name of the socket in `<state-dir>/cni`: `weft-cni` looks for it beside its reservations.
const SOCKET: &str = "added.sock";

/// Listens as a task of the runtime until `shutdown`.
///
/// # Errors
/// The socket cannot be made; ADD works all the same.
pub(crate) fn listen(state_dir: &Path, metrics: Arc<Metrics>, shutdown: CancellationToken) -> io::Result<()> {
    let directory = state_dir.join("cni");
    fs::create_dir_all(&directory)?;
    let path = directory.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        let mut told = [0; 64];
        while let Some(Ok(length)) = shutdown.run_until_cancelled(socket.recv(&mut told)).await {
            match std::str::from_utf8(&told[..length]).ok().and_then(understand) {
                Some((took, succeeded)) => metrics.pod_added(took, succeeded),
                None => debug!(length, "somebody told what nobody understands"),
            }
        }
        let _ = fs::remove_file(path);
    });
    Ok(())
}

/// `success 12345`, in microseconds.
fn understand(text: &str) -> Option<(Duration, bool)> {
    let (outcome, microseconds) = text.split_once(' ')?;
    let succeeded = match outcome {
        "success" => true,
        "error" => false,
        _ => return None,
    };
    Some((Duration::from_micros(microseconds.parse().ok()?), succeeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_weft_cni_says_is_understood() {
        assert_eq!(understand("success 1500"), Some((Duration::from_micros(1500), true)));
        assert_eq!(understand("error 7"), Some((Duration::from_micros(7), false)));
        for wrong in ["", "success", "success x", "other 1", "success -1"] {
            assert_eq!(understand(wrong), None, "{wrong}");
        }
    }
}
