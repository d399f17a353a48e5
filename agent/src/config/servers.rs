//! Where health and metrics are served, and how the agent logs (kube-proxy.md 11, 15, 16).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Mistakes,
    settings::{Origin, Settings},
};
use crate::cli::{DEPRECATED, Given};

/// Health and metrics servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServersConfig {
    /// Where health is told; `None`: nowhere (`--healthz-port=0`).
    pub(crate) healthz: Option<SocketAddr>,
    /// Where metrics are.
    pub(crate) metrics: SocketAddr,
    /// Whether the agent ends when it cannot listen there.
    pub(crate) hard_fail: bool,
    /// How long an update may wait before the node is unhealthy: twice syncPeriod.
    pub(crate) late_after: Duration,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// Lines of JSON instead of text.
    pub(crate) json: bool,
    /// klog's verbosity.
    pub(crate) verbosity: i64,
}

impl LogConfig {
    /// The level klog's verbosity stands for; `$RUST_LOG` wins.
    pub(crate) fn filter(&self) -> &'static str {
        match self.verbosity {
            ..4 => "info",
            4..8 => "info,weft=debug,weft_overlay=debug,weft_proxy=debug,weft_ebpf=debug,weft_netlink=debug",
            8.. => "debug,weft=trace,weft_overlay=trace,weft_proxy=trace,weft_ebpf=trace,weft_netlink=trace",
        }
    }
}

/// Reads the addresses, and puts the effective ones into `settings`.
pub(super) fn read(given: &Given, settings: &mut Settings, mistakes: &mut Mistakes) -> Option<ServersConfig> {
    for (flag, instead) in DEPRECATED {
        if given.value(flag).is_some() {
            mistakes.notice(format!("flag --{flag} is deprecated; use {instead}"));
        }
    }
    let bind = settings.text("bindAddress");
    let wrong = "not a valid textual representation of an IP address";
    let bind: Option<IpAddr> = mistakes.check(&origin(settings, "bindAddress"), bind, bind.parse().map_err(|_| wrong));
    let v6 = bind.is_some_and(|bind| bind.is_ipv6());
    let healthz_default = if v6 { "[::]:10256" } else { "0.0.0.0:10256" };
    let metrics_default = if v6 { "[::1]:10249" } else { "127.0.0.1:10249" };
    let healthz = Address { path: "healthzBindAddress", port: "healthz-port", ip: "healthz-ip", usual: 10256 };
    let metrics = Address { path: "metricsBindAddress", port: "metrics-port", ip: "", usual: 10249 };
    let off = given.value("healthz-port") == Some("0") && settings.get(healthz.path).origin == Origin::Default;
    let healthz = if off { None } else { Some(healthz.read(given, settings, healthz_default, mistakes)) };
    let metrics = metrics.read(given, settings, metrics_default, mistakes);
    let period = if settings.text("mode") == "nftables" { "nftables.syncPeriod" } else { "iptables.syncPeriod" };
    if settings.duration(period).is_zero() {
        mistakes.add(origin(settings, period), settings.text(period), "must be greater than 0");
    }
    let min = if settings.text("mode") == "nftables" { "nftables.minSyncPeriod" } else { "iptables.minSyncPeriod" };
    if settings.duration(min) > settings.duration(period) {
        let problem = format!("must be greater than or equal to {min}, which is {}", settings.text(min));
        mistakes.add(origin(settings, period), settings.text(period), problem);
    }
    Some(ServersConfig {
        healthz: match healthz {
            None => {
                settings.set("healthzBindAddress", "", Origin::Flag("--healthz-port=0".to_owned()));
                None
            }
            Some(address) => Some(address?),
        },
        metrics: metrics?,
        hard_fail: settings.boolean("bindAddressHardFail"),
        late_after: settings.duration(period).saturating_mul(2),
    })
}

/// How the agent logs.
pub(super) fn log(settings: &Settings, mistakes: &mut Mistakes) -> LogConfig {
    let format = settings.text("logging.format");
    if !["text", "json"].contains(&format) {
        mistakes.add(origin(settings, "logging.format"), format, "Unsupported log format: must be text or json");
    }
    LogConfig { json: format == "json", verbosity: settings.whole("logging.verbosity") }
}

/// How messages name where a setting came from.
fn origin(settings: &Settings, path: &str) -> String {
    match &settings.get(path).origin {
        Origin::Flag(flag) => flag.clone(),
        Origin::File { path: file, line } => format!("{}:{line}: {path}", file.display()),
        _ => path.to_owned(),
    }
}

/// An address to listen at, with the deprecated flags for its parts.
struct Address {
    path: &'static str,
    port: &'static str,
    ip: &'static str,
    usual: u16,
}

impl Address {
    /// kube-proxy appends the port if there is none.
    fn read(
        &self,
        given: &Given,
        settings: &mut Settings,
        default: &str,
        mistakes: &mut Mistakes,
    ) -> Option<SocketAddr> {
        let before = mistakes.count();
        let port = match given.value(self.port) {
            None => self.usual,
            Some(text) => match text.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => {
                    mistakes.add(format!("--{}", self.port), text, "must be a valid port");
                    self.usual
                }
            },
        };
        let setting = settings.get(self.path).clone();
        let text = setting.value.as_str().unwrap_or_default().to_owned();
        let (place, text, origin) = match &setting.origin {
            Origin::Default => {
                let [ip, port_flag] = [self.ip, self.port].map(|flag| given.value(flag).map(|value| (flag, value)));
                let host = ip.map_or_else(|| default.rsplit_once(':').map_or("", |(host, _)| host).to_owned(), host);
                let origin = match ip.or(port_flag) {
                    Some((flag, _)) => Origin::Flag(format!("--{flag}")),
                    None => Origin::Default,
                };
                (self.path.to_owned(), format!("{host}:{port}"), origin)
            }
            origin => (self::origin(settings, self.path), text, origin.clone()),
        };
        let parsed = parse(&text, port);
        let address = mistakes.check(&place, &text, parsed)?;
        settings.set(self.path, address.to_string(), origin);
        (mistakes.count() == before).then_some(address)
    }
}

fn host((_, ip): (&str, &str)) -> String {
    if ip.contains(':') { format!("[{}]", ip.trim_matches(['[', ']'])) } else { ip.to_owned() }
}

/// `IP:port`, or an IP that gets `port`, with kube-proxy's messages.
fn parse(text: &str, port: u16) -> Result<SocketAddr, &'static str> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let (host, port) = text.rsplit_once(':').ok_or("must be IP:port")?;
    let ip = host.trim_matches(['[', ']']).parse().map_err(|_| "must be a valid IP")?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err("must be a valid port"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn addresses_are_kube_proxys() {
        for (text, expected) in [
            ("0.0.0.0:10256", Ok("0.0.0.0:10256")),
            ("127.0.0.1", Ok("127.0.0.1:7")),
            ("fd00::1", Ok("[fd00::1]:7")),
            ("[::]:10256", Ok("[::]:10256")),
            ("", Err("must be IP:port")),
            ("localhost:1", Err("must be a valid IP")),
            ("127.0.0.1:0", Err("must be a valid port")),
            ("127.0.0.1:70000", Err("must be a valid port")),
        ] {
            assert_eq!(parse(text, 7), expected.map(|text: &str| text.parse().unwrap()), "{text}");
        }
    }
}
