//! Kernel parameters of conntrack, set once at start: kube-proxy.md 10.10.

use std::{fs, io, thread, time::Duration};

use weft_netlink::sysctl;

/// Largest table that a number of CPUs asks for.
const MAX_BY_CPUS: u64 = 1 << 20;

/// Entries per bucket of the hash table at most.
const ENTRIES_PER_BUCKET: u64 = 4;

const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// What is asked for, under kube-proxy's names (`conntrack` in its configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackParameters {
    /// Entries per CPU; 0 leaves the size of the table alone.
    pub max_per_core: u32,
    /// Entries at least, however few CPUs there are.
    pub min: u32,
    /// Life of an idle TCP connection, in whole seconds; zero leaves it alone, as it does below.
    pub tcp_established_timeout: Duration,
    /// Life of a TCP connection in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Duration,
    /// Whether TCP segments outside the window are tracked all the same; false leaves it alone.
    pub tcp_be_liberal: bool,
    /// Life of a UDP flow that was not answered yet.
    pub udp_timeout: Duration,
    /// Life of a UDP flow that was.
    pub udp_stream_timeout: Duration,
}

impl Default for ConntrackParameters {
    /// kube-proxy's defaults.
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established_timeout: Duration::from_hours(24),
            tcp_close_wait_timeout: Duration::from_hours(1),
            tcp_be_liberal: false,
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
        }
    }
}

/// Where a value belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Below `/proc/sys`.
    Sysctl(&'static str),
    /// Buckets of the hash table, a parameter of the module.
    HashSize,
}

/// A value that a parameter is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which one.
    pub parameter: Parameter,
    /// Its value: entries, buckets, seconds, or 1 for yes.
    pub value: u64,
}

impl Setting {
    /// Whether it must be written where `current` is in force. A hash table that is larger than needed stays.
    pub fn differs_from(&self, current: u64) -> bool {
        match self.parameter {
            Parameter::Sysctl(_) => current != self.value,
            Parameter::HashSize => current < self.value,
        }
    }
}

/// The settings, in the order to write them in. Pure. The size of the table is the machine's: it can be written only in the
/// first network namespace.
pub fn settings(asked: &ConntrackParameters, cpus: u32) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |parameter, value| settings.push(Setting { parameter, value });
    if asked.max_per_core > 0 {
        let by_cpus = u64::from(asked.max_per_core) * u64::from(cpus);
        // Where the cap takes hold, the minimum is not looked at, as in kube-proxy.
        let max = if by_cpus > MAX_BY_CPUS { MAX_BY_CPUS } else { by_cpus.max(asked.min.into()) };
        set(Parameter::Sysctl("net/netfilter/nf_conntrack_max"), max);
        set(Parameter::HashSize, max / ENTRIES_PER_BUCKET);
    }
    for (name, timeout) in [
        ("net/netfilter/nf_conntrack_tcp_timeout_established", asked.tcp_established_timeout),
        ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", asked.tcp_close_wait_timeout),
        ("net/netfilter/nf_conntrack_udp_timeout", asked.udp_timeout),
        ("net/netfilter/nf_conntrack_udp_timeout_stream", asked.udp_stream_timeout),
    ] {
        if timeout > Duration::ZERO {
            set(Parameter::Sysctl(name), timeout.as_secs());
        }
    }
    if asked.tcp_be_liberal {
        set(Parameter::Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal"), 1);
    }
    settings
}

/// A parameter could not be read or written. Fatal at start in kube-proxy; a retry helps only after somebody intervened.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// One below `/proc/sys`.
    #[error(transparent)]
    Sysctl(#[from] weft_netlink::Error),
    /// The size of the hash table; usual where `/sys` is mounted read-only.
    #[error("set {HASH_SIZE} to {value}")]
    HashSize {
        /// The value it was to have.
        value: u64,
        /// Why it has not.
        #[source]
        source: io::Error,
    },
}

/// Writes what differs, in the network namespace of the calling thread. Returns what was written.
///
/// # Errors
/// The first parameter that could not be set; those before it are.
pub fn apply(settings: &[Setting]) -> Result<Vec<Setting>, ParameterError> {
    let mut written = Vec::new();
    for setting in settings {
        let changed = match setting.parameter {
            Parameter::Sysctl(name) => sysctl::set(name, &setting.value.to_string())? == sysctl::Changed::Yes,
            Parameter::HashSize => {
                set_hash_size(setting).map_err(|source| ParameterError::HashSize { value: setting.value, source })?
            }
        };
        if changed {
            written.push(*setting);
        }
    }
    Ok(written)
}

fn set_hash_size(setting: &Setting) -> io::Result<bool> {
    let current = fs::read_to_string(HASH_SIZE)?;
    let current = current.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let differs = setting.differs_from(current);
    if differs {
        fs::write(HASH_SIZE, setting.value.to_string())?;
    }
    Ok(differs)
}

/// CPUs of the machine that are online. Not those this process may use: the table serves the whole machine.
pub fn online_cpus() -> u32 {
    let listed = fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|text| count_cpus(text.trim()));
    listed.unwrap_or_else(|| {
        thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok()).unwrap_or(1)
    })
}

/// Counts a list such as `0-3,5`.
pub(super) fn count_cpus(list: &str) -> Option<u32> {
    let counts = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    });
    counts.sum::<Option<u32>>().filter(|count| *count > 0)
}
