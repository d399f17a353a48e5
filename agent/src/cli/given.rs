//! Which flags were given, and how: kube-proxy's and flanneld's whole sets, whether they do something here or not.
//!
//! What the other structs of this command line do not name is defined here, by tables. Values are text: `config` checks
//! them together with those of the files.

use std::{collections::BTreeMap, ffi::OsStr};

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
    ("ip-blackhole-route", Kind::Boolean, "Weft always has an unreachable route for pods that are not there"),
    ("ip-masq-fully-random-disable", Kind::Boolean, "Weft always takes random ports: every kernel it runs on can"),
    ("iptables-resync", Kind::Text, "Weft puts back at once what somebody removes"),
    ("log-backtrace-at", Kind::Text, "use $RUST_LOG, such as weft=debug"),
    ("logtostderr", Kind::Boolean, "Weft logs to standard error"),
    ("machine-id-file", Kind::Text, "kube-proxy uses it for nothing that is seen outside"),
];

/// Flags of kube-proxy on Windows: told by name, for whoever brings them has the wrong node.
pub(crate) const REFUSED: &[(&str, Kind, &str)] = &[
    ("enable-dsr", Kind::Boolean, WINDOWS),
    ("forward-healthcheck-vip", Kind::Boolean, WINDOWS),
    ("network-name", Kind::Text, WINDOWS),
    ("root-hnsendpoint-name", Kind::Text, WINDOWS),
    ("source-vip", Kind::Text, WINDOWS),
    ("windows-service", Kind::Boolean, WINDOWS),
];

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

/// Flags whose values are nobody's business.
const SECRET: &[&str] = &["etcd-password"];

impl GivenFlag {
    /// The values of the flag of this name, as they may be shown.
    pub(crate) fn shown(&self, name: &str) -> Vec<String> {
        if SECRET.contains(&name) { vec!["(hidden)".to_owned()] } else { self.values.clone() }
    }
}

impl Given {
    /// The value of a flag that somebody gave; the last one if it is repeated.
    pub(crate) fn value(&self, flag: &str) -> Option<&str> {
        self.0.get(flag).filter(|given| given.by != GivenBy::Default)?.values.last().map(String::as_str)
    }

    /// Every flag that has a value, as it may be shown to others.
    pub(crate) fn shown(&self) -> BTreeMap<String, String> {
        let shown = |(name, flag): (&str, &GivenFlag)| (name.to_owned(), flag.shown(name).join(","));
        self.iter().map(shown).collect()
    }

    /// Whether the command line has any flag but those that say how to print.
    pub(crate) fn any(&self) -> bool {
        self.iter().any(|(name, flag)| flag.by == GivenBy::CommandLine && name != "output")
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

/// Whether an argument names no file by a flag that may do so: `--kubeconfig=` says in Go what leaving it out says.
pub(super) fn is_no_file(argument: &OsStr) -> bool {
    const FILES: [&str; 6] =
        ["config", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "kubeconfig", "kubeconfig-file"];
    let name = argument.to_str().and_then(|text| text.strip_prefix("--")?.strip_suffix('='));
    name.is_some_and(|name| FILES.contains(&name))
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
    // kube-proxy prints its version in several forms, `--version=raw` being one.
    if long == "--version" {
        return long;
    }
    value.map_or(long.clone(), |value| format!("{long}={value}"))
}

#[cfg(test)]
mod tests;
