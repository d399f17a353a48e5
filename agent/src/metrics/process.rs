//! The agent as the kernel sees it: what Prometheus' client libraries tell of every process.

use std::fs;

/// Ticks a second in `/proc`: a constant of the kernel's interface (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A look at `/proc/self`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) resident_bytes: i64,
    pub(super) virtual_bytes: i64,
    pub(super) cpu_seconds: f64,
    /// Seconds since 1970.
    pub(super) started: f64,
    pub(super) open_files: i64,
    /// -1: no limit.
    pub(super) max_files: i64,
}

/// Reads it; `None` where `/proc` is not as proc(5) says.
pub(super) fn look() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold blanks and brackets; what follows the last bracket starts with field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // Not in stat's or statm's pages, whose size is not the same on all processors.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib: i64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Process {
        resident_bytes: resident_kib.saturating_mul(1024),
        virtual_bytes: fields.get(23 - 3)?.parse().ok()?,
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        started: booted + field(22)? / TICKS,
        open_files: i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
        max_files: max_files.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(-1),
    })
}
