//! Waiting for a condition with a deadline, instead of sleeping.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};

/// Time between two looks. Short, because a convergence time of a few milliseconds is a result too.
const PAUSE: Duration = Duration::from_millis(10);

/// `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Microseconds since 1970, to compare with [`Seen`](crate::Seen).
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Looks until `look` returns `Ok`, and returns its value and how long that took.
///
/// # Errors
/// The last thing seen, once `deadline` has passed.
pub fn eventually<T, E: Display>(deadline: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(last) if start.elapsed() >= deadline => {
                bail!("not so after {deadline:?}; last seen: {last:#}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
