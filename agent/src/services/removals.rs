//! Notices that packet rules were removed, so that ours are put back without waiting for the next regular look.

use std::{io, thread, time::Duration};

use tracing::warn;
use weft_netlink::NftWatch;
use weft_proxy::{iptables, nftables};

/// The kernel tells of every rule that goes, by thousands at a time.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `deliver` after chains or rules were removed from the tables that data planes have rules in, by somebody else or by
/// ourselves, on a thread of its own. It ends when `deliver` says that nobody listens any more. Where the kernel has no nftables there
/// is nothing to follow.
///
/// # Errors
/// There is no thread to do it on.
pub(crate) fn follow(deliver: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let watch = match NftWatch::open() {
        Ok(watch) => watch,
        Err(error) => {
            warn!(%error, "the kernel does not tell of removed rules; the regular look finds them");
            return Ok(());
        }
    };
    let tables: Vec<&str> = [nftables::TABLE_NAME].into_iter().chain(iptables::TABLE_NAMES).collect();
    let follow = move || {
        loop {
            if let Err(error) = watch.wait_removed(&tables) {
                warn!(%error, "no more notices of removed rules; the regular look finds them");
                return;
            }
            if !deliver() {
                return;
            }
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new().name("removals".to_owned()).spawn(follow).map(drop)
}
