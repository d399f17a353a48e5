//! Kernel parameters of conntrack, from kube-proxy's flags and the section `conntrack` of its file (kube-proxy.md 10.10, 15).

use std::time::Duration;

use weft_proxy::conntrack::ConntrackParameters;

use super::{Mistakes, kube_proxy::KubeProxyFile};
use crate::cli::ConntrackArgs;

/// Reads the flags and the file; a flag wins, and kube-proxy's defaults hold for the rest.
pub(super) fn read(args: &ConntrackArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> ConntrackParameters {
    let (section, defaults) = (&file.conntrack, ConntrackParameters::default());
    let mut number = |flag: (&str, &Option<String>), field: &str, given: Option<u64>, default| match (flag, given) {
        ((name, Some(text)), _) => mistakes.whole(name, text, 0..=u32::MAX).unwrap_or(default),
        (_, Some(given)) => u32::try_from(given).unwrap_or_else(|_| {
            mistakes.add(file.origin(field), given, format!("must be 0 to {}", u32::MAX));
            default
        }),
        (_, None) => default,
    };
    let flag = ("--conntrack-max-per-core", &args.conntrack_max_per_core);
    let max_per_core = number(flag, "conntrack.maxPerCore", section.max_per_core, defaults.max_per_core);
    let min = number(("--conntrack-min", &args.conntrack_min), "conntrack.min", section.min, defaults.min);
    let mut time = |flag: (&str, &Option<String>), field: (&str, &Option<String>), default| {
        let (origin, text) = match (flag, field) {
            ((name, Some(text)), _) => (name.to_owned(), text),
            (_, (name, Some(text))) => (file.origin(name), text),
            _ => return default,
        };
        duration(text).unwrap_or_else(|| {
            mistakes.add(origin, text, "must be a duration such as 24h0m0s or 90s, not negative");
            default
        })
    };
    ConntrackParameters {
        max_per_core,
        min,
        tcp_established_timeout: time(
            ("--conntrack-tcp-timeout-established", &args.conntrack_tcp_timeout_established),
            ("conntrack.tcpEstablishedTimeout", &section.tcp_established_timeout),
            defaults.tcp_established_timeout,
        ),
        tcp_close_wait_timeout: time(
            ("--conntrack-tcp-timeout-close-wait", &args.conntrack_tcp_timeout_close_wait),
            ("conntrack.tcpCloseWaitTimeout", &section.tcp_close_wait_timeout),
            defaults.tcp_close_wait_timeout,
        ),
        tcp_be_liberal: args.conntrack_tcp_be_liberal.or(section.tcp_be_liberal).unwrap_or(defaults.tcp_be_liberal),
        udp_timeout: time(
            ("--conntrack-udp-timeout", &args.conntrack_udp_timeout),
            ("conntrack.udpTimeout", &section.udp_timeout),
            defaults.udp_timeout,
        ),
        udp_stream_timeout: time(
            ("--conntrack-udp-timeout-stream", &args.conntrack_udp_timeout_stream),
            ("conntrack.udpStreamTimeout", &section.udp_stream_timeout),
            defaults.udp_stream_timeout,
        ),
    }
}

/// A duration as Go writes it, to the millisecond: `24h0m0s`, `1.5h`, `90s`, `250ms`, `0`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, unit_on) = rest.split_at(end);
        let end = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let seconds = |text| duration(text).map(|duration| duration.as_millis());
        for (text, milliseconds) in [
            ("24h0m0s", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("90s", 90_000),
            ("250ms", 250),
            ("0", 0),
            ("0s", 0),
            ("+2m", 120_000),
        ] {
            assert_eq!(seconds(text), Some(milliseconds), "{text}");
        }
        for wrong in ["", "-1s", "1", "s", "1d", "1h-3m", "1..5h", "h1", "9e99h"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
