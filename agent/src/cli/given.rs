//! Which flags were given, and how: kube-proxy's and flanneld's whole sets, whether they do something here or not.
//!
//! What the other structs of this command line do not name is defined here, by tables. Values are text: `config` checks
//! them together with those of the files.

use std::collections::BTreeMap;

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches,
    builder::{BoolishValueParser, Str},
    parser::ValueSource,
};

use crate::config::{Effect, FIELDS, Kind};

/// Flags of kube-proxy's that work here and are defined by the table of configuration fields.
pub(crate) const SERVERS_AND_LOG: &[&str] = &[
    "bind-address",
    "bind-address-hard-fail",
    "healthz-bind-address",
    "iptables-sync-period",
    "logging-format",
    "metrics-bind-address",
    "oom-score-adj",
    "v",
];

/// Heading of [`SERVERS_AND_LOG`] in the help.
const HEADING: &str = "Health, metrics, log (kube-proxy's flags)";

/// Flags that still work, with what to use instead.
pub(crate) const DEPRECATED: &[(&str, &str)] = &[
    ("healthz-ip", "--healthz-bind-address"),
    ("healthz-port", "--healthz-bind-address"),
    ("metrics-port", "--metrics-bind-address"),
];

/// Flags without a field of the configuration file that are accepted and do nothing, with the reason.
pub(crate) const WITHOUT_EFFECT: &[(&str, Kind, &str)] = &[
    ("alsologtostderr", Kind::Boolean, "Weft logs to standard error"),
    ("boot-id-file", Kind::Text, "kube-proxy uses it for nothing that is seen outside"),
    ("iptables-resync", Kind::Text, "Weft puts back at once what somebody removes"),
    ("log-backtrace-at", Kind::Text, "use $RUST_LOG, such as weft=debug"),
    ("logtostderr", Kind::Boolean, "Weft logs to standard error"),
    ("machine-id-file", Kind::Text, "kube-proxy uses it for nothing that is seen outside"),
];

/// Flags of what Weft does not have: told by name, since ignoring them would hide a surprise.
pub(crate) const REFUSED: &[(&str, Kind, &str)] = &[
    ("enable-dsr", Kind::Boolean, WINDOWS),
    ("forward-healthcheck-vip", Kind::Boolean, WINDOWS),
    ("init-only", Kind::Boolean, "Weft sets what it needs when it starts; give the agent its capabilities instead"),
    ("ipvs-exclude-cidrs", Kind::Text, IPVS),
    ("ipvs-min-sync-period", Kind::Text, IPVS),
    ("ipvs-scheduler", Kind::Text, IPVS),
    ("ipvs-strict-arp", Kind::Boolean, IPVS),
    ("ipvs-sync-period", Kind::Text, IPVS),
    ("ipvs-tcp-timeout", Kind::Text, IPVS),
    ("ipvs-tcpfin-timeout", Kind::Text, IPVS),
    ("ipvs-udp-timeout", Kind::Text, IPVS),
    ("network-name", Kind::Text, WINDOWS),
    ("root-hnsendpoint-name", Kind::Text, WINDOWS),
    ("source-vip", Kind::Text, WINDOWS),
    ("windows-service", Kind::Boolean, WINDOWS),
];

const IPVS: &str = "Weft has no ipvs mode; leave it out, and choose --proxy-mode=ebpf, nftables or iptables";
const WINDOWS: &str = "Weft runs on Linux; leave it out";

/// All flags of the command line, by name, with their values.
///
/// The first field of a struct that is parsed, since parsing takes values out of the matches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given(BTreeMap<String, GivenFlag>);

/// One flag with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenFlag {
    /// The values, more than one if the flag is repeated.
    pub(crate) values: Vec<String>,
    /// Who gave it.
    pub(crate) by: GivenBy,
}

/// Who gave a flag its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenBy {
    /// Nobody.
    Default,
    /// The environment.
    Environment,
    /// The command line.
    CommandLine,
}

impl Given {
    /// The value of a flag that somebody gave; the last one if it is repeated.
    pub(crate) fn value(&self, flag: &str) -> Option<&str> {
        self.0.get(flag).filter(|given| given.by != GivenBy::Default)?.values.last().map(String::as_str)
    }

    /// Every flag that has a value, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &GivenFlag)> {
        self.0.iter().map(|(name, flag)| (name.as_str(), flag))
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let fields = FIELDS.iter().filter(|field| !field.flag.is_empty());
        let mut flags: BTreeMap<&str, Arg> = BTreeMap::new();
        for field in fields {
            match field.effect {
                Effect::Used(help) if SERVERS_AND_LOG.contains(&field.flag) => {
                    let help = format!("{help} Default: {}", field.default);
                    flags.entry(field.flag).or_insert_with(|| arg(field.flag, field.kind).help(help));
                }
                Effect::None(_) => {
                    flags.entry(field.flag).or_insert_with(|| arg(field.flag, field.kind).hide(true));
                }
                Effect::Used(_) => {}
            }
        }
        for (name, kind, _) in WITHOUT_EFFECT.iter().chain(REFUSED) {
            flags.insert(name, arg(name, *kind).hide(true));
        }
        for (name, _) in DEPRECATED {
            flags.insert(name, arg(name, Kind::Text).hide(true));
        }
        command.args(flags.into_values())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(name: &'static str, kind: Kind) -> Arg {
    let arg = Arg::new(name).action(ArgAction::Set).help_heading(HEADING).hide_default_value(true);
    let arg = if name == "v" { arg.short('v').long(name) } else { arg.long(name) };
    let value_name = match kind {
        Kind::Boolean => "BOOL",
        Kind::Duration => "DURATION",
        Kind::Whole(..) | Kind::Number => "N",
        _ => "VALUE",
    };
    let arg = arg.value_name(value_name).allow_negative_numbers(true);
    // As Go's: a switch may stand alone, and its value needs an equals sign.
    if kind == Kind::Boolean { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut given = BTreeMap::new();
        // Groups are named after their structs, in CamelCase.
        for id in matches.ids().filter(|id| id.as_str().starts_with(|c: char| c.is_ascii_lowercase())) {
            let by = match matches.value_source(id.as_str()) {
                Some(ValueSource::CommandLine) => GivenBy::CommandLine,
                Some(ValueSource::EnvVariable) => GivenBy::Environment,
                _ => GivenBy::Default,
            };
            let Ok(Some(values)) = matches.try_get_raw(id.as_str()) else { continue };
            let values = values.map(|value| value.to_string_lossy().into_owned()).collect();
            given.insert(id.as_str().replace('_', "-"), GivenFlag { values, by });
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Gives flanneld's flags their environment variables, `FLANNELD_` and the name (flannel.md 2), where an empty one counts as
/// none; and lets switches be 1, t or TRUE as in Go.
pub(super) fn as_in_go(command: Command) -> Command {
    command.mut_args(|arg| {
        let switch = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "BOOL"));
        let arg = if switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
        let flannels = arg.get_help_heading().is_some_and(|heading| heading.contains("flannel"));
        let variable = arg.get_long().map(|long| format!("FLANNELD_{}", long.to_uppercase().replace('-', "_")));
        let stated = |variable: &String| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        match variable.filter(|variable| flannels && stated(variable)) {
            Some(variable) => arg.env(Str::from(variable)).hide_env(true),
            None => arg,
        }
    })
}

/// Go's and kube-proxy's spellings of flags: `-iface=eth0` and `--proxy_mode` are `--iface=eth0` and `--proxy-mode`.
pub(super) fn spelled_out(argument: String) -> String {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument.as_str(), None),
    };
    let long = match (name.strip_prefix("--"), name.strip_prefix('-')) {
        (Some(long), _) => long,
        (None, Some(long)) if long.len() > 2 && long.starts_with(|c: char| c.is_ascii_alphabetic()) => long,
        _ => return argument,
    };
    // `-ojson` and `-v10` are short flags with their values.
    if !name.starts_with("--") && (long == "ojson" || long[1..].chars().all(|c| c.is_ascii_digit())) {
        return argument;
    }
    let long = format!("--{}", long.replace('_', "-"));
    value.map_or(long.clone(), |value| format!("{long}={value}"))
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::{GivenBy, spelled_out};
    use crate::cli::{self, Cli, Command};

    #[test]
    fn all_that_has_a_value_is_a_flag_and_its_giver_is_known() {
        let arguments = ["weft", "agent", "--iface=a", "--iface=b", "--masquerade-all", "--v=3", "--source=dir:/x"];
        let Command::Agent(args) = Cli::try_parse_from(arguments).unwrap().command else { unreachable!() };
        let command = cli::command();
        let agent = command.find_subcommand("agent").unwrap();
        for (name, _) in args.given.iter() {
            assert!(agent.get_arguments().any(|arg| arg.get_long() == Some(name)), "{name}");
        }
        let by = |flag| args.given.iter().find(|(name, _)| *name == flag).map(|(_, given)| given.by);
        assert_eq!([by("iface"), by("components")], [Some(GivenBy::CommandLine), Some(GivenBy::Default)]);
        assert_eq!(args.given.value("iface"), Some("b"));
        assert_eq!([args.given.value("masquerade-all"), args.given.value("v")], [Some("true"), Some("3")]);
        assert_eq!(args.given.value("components"), None, "nobody gave it");
    }

    #[test]
    fn switches_are_those_of_go() {
        for (text, on) in [("1", true), ("t", true), ("TRUE", true), ("0", false), ("False", false)] {
            let flags = [format!("--ip-masq={text}"), format!("--bind-address-hard-fail={text}")];
            let arguments = ["weft", "agent"].into_iter().chain(flags.iter().map(String::as_str));
            let matches = cli::command().try_get_matches_from(arguments).unwrap();
            let Command::Agent(args) = Cli::from_arg_matches(&matches).unwrap().command else { unreachable!() };
            assert_eq!(args.overlay.ip_masq, on, "{text}");
            assert_eq!(args.given.value("bind-address-hard-fail"), Some(text));
        }
        assert!(cli::command().try_get_matches_from(["weft", "agent", "--ip-masq=maybe"]).is_err());
    }

    #[test]
    fn gos_spellings_are_understood() {
        for (given, meant) in [
            ("-iface=eth0", "--iface=eth0"),
            ("--proxy_mode=ebpf", "--proxy-mode=ebpf"),
            ("--log_backtrace_at=a_b.go:1", "--log-backtrace-at=a_b.go:1"),
            ("-ip-masq", "--ip-masq"),
            ("-v=2", "-v=2"),
            ("-v10", "-v10"),
            ("-o", "-o"),
            ("-ojson", "-ojson"),
            ("eth_0", "eth_0"),
            ("--", "--"),
        ] {
            assert_eq!(spelled_out(given.to_owned()), meant, "{given}");
        }
    }
}
