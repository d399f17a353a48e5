//! Kernel parameters under `/proc/sys`.
//!
//! `/proc/sys/net` shows the parameters of the network namespace the calling thread is in when it opens the file.

use std::{fs, io::Write};

use crate::error::{During, Result};

/// Whether [`set`] had to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It had another value before.
    Yes,
    /// It had the value already.
    No,
}

/// The value of a parameter, such as `net/ipv4/ip_forward`, without the final newline.
///
/// # Errors
/// [`is_not_found`](crate::Error::is_not_found): the kernel or the interface has no such parameter.
pub fn get(parameter: &str) -> Result<String> {
    let mut value = fs::read_to_string(path(parameter)).during("read sysctl", parameter)?;
    value.truncate(value.trim_end().len());
    Ok(value)
}

/// Gives a parameter a value, writing only if it has another: writing some of them has effects of its own, and a
/// read-only `/proc/sys` does not matter when all is as it should be.
///
/// # Errors
/// As [`get`]; or it cannot be written.
pub fn set(parameter: &str, value: &str) -> Result<Changed> {
    if get(parameter)? == value {
        return Ok(Changed::No);
    }
    let write = || fs::OpenOptions::new().write(true).open(path(parameter))?.write_all(value.as_bytes());
    write().during("write sysctl", format_args!("{parameter} = {value}"))?;
    Ok(Changed::Yes)
}

fn path(parameter: &str) -> String {
    format!("/proc/sys/{parameter}")
}
