//! `follow`: who answers at an address, and since when.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use weft_tests::{Followed, unix_us};

use crate::client;

/// A connection that meets rules in the making may be lost; the next one tells.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Longer than any data plane takes for one change.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connect again and again, and tell when another server answers.
#[derive(Args)]
pub(crate) struct Follow {
    /// Pause between connections.
    #[arg(long, default_value_t = 1000)]
    pause_us: u64,
    /// Where to.
    target: SocketAddr,
}

impl Follow {
    pub(crate) fn run(self) -> Result<()> {
        let mut current: Option<String> = None;
        let mut since = Instant::now();
        loop {
            let at_us = unix_us();
            if let Ok((connection, answer)) = client::connect(self.target, TIMEOUT)
                && current.as_ref() != Some(&answer.name)
            {
                drop(connection);
                match current.replace(answer.name.clone()) {
                    None => crate::say_ready(),
                    Some(_) => crate::report(&Followed { name: answer.name, at_us })?,
                }
                since = Instant::now();
            }
            if since.elapsed() > PATIENCE {
                bail!("{} is still served by {current:?} after {PATIENCE:?}", self.target);
            }
            thread::sleep(Duration::from_micros(self.pause_us));
        }
    }
}
