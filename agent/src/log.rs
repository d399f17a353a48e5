//! The log: standard error, as text or as JSON. `$RUST_LOG` wins over the configuration.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Changes what is logged, from now on.
pub(crate) type ChangeFilter = Box<dyn Fn(&'static str) + Send>;

/// Starts logging.
pub(crate) fn start(log: &LogConfig) -> ChangeFilter {
    let given = EnvFilter::try_from_default_env();
    let fixed = given.is_ok() && env::var_os(EnvFilter::DEFAULT_ENV).is_some();
    let filter = given.unwrap_or_else(|_| EnvFilter::new(log.filter()));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let change: ChangeFilter = if log.json {
        let lines = lines.json().with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        Box::new(move |filter| _ = handle.reload(EnvFilter::new(filter)))
    } else {
        let lines = lines.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        Box::new(move |filter| _ = handle.reload(EnvFilter::new(filter)))
    };
    Box::new(move |filter| {
        if !fixed {
            change(filter);
        }
    })
}
