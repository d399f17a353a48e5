//! Waiting for a condition with a deadline, instead of sleeping.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks. Short, because a convergence time of a few milliseconds is a result too.
const PAUSE: Duration = Duration::from_millis(10);

/// `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
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
