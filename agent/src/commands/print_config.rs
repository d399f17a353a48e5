//! `weft agent --print-config`: the effective configuration, and where each value comes from.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::{
    cli::{ConfigFormat, Given, GivenBy, GivenFlag},
    config::{Config, FIELDS, Origin, insert},
};

/// Flags without a value that get one when the agent starts.
const FOUND_AT_START: &[(&str, &str)] = &[
    ("cgroup-root", "at start: the mounted cgroup2 root"),
    ("iface", "at start: the interface of the default route"),
    ("public-ip", "at start: the Node's annotation public-ip-overwrite, else the interface's address"),
    ("public-ipv6", "at start: the Node's annotation public-ipv6-overwrite, else the interface's address"),
];

/// Flags that say what to do, not how.
const NOT_CONFIGURATION: &[&str] = &["cleanup", "init-only", "output", "print-config", "write-config-to"];

/// A value, and where it comes from.
struct Line {
    path: String,
    value: Value,
    origin: String,
}

/// The configuration as text.
pub(crate) fn print(config: &Config, given: &Given, output: ConfigFormat) -> String {
    let lines = lines(config, given);
    match output {
        ConfigFormat::Json => format!("{:#}\n", as_json(&lines)),
        ConfigFormat::Yaml => as_yaml(&lines),
    }
}

fn lines(config: &Config, given: &Given) -> Vec<Line> {
    let fields = config.settings.iter().map(|(path, setting)| Line {
        path: format!("kubeProxyConfiguration.{path}"),
        value: setting.value.clone(),
        origin: match (path, &setting.origin) {
            ("mode", Origin::Default) => "default: the first this node can have".to_owned(),
            (_, origin) => origin.to_string(),
        },
    });
    let of_a_field = |flag: &str| FIELDS.iter().any(|field| field.flag == flag);
    let flags = given.iter().filter(|(name, _)| !of_a_field(name) && !NOT_CONFIGURATION.contains(name));
    let mut lines: Vec<_> = fields.chain(flags.map(|(name, flag)| line(name, flag))).collect();
    let unset = FOUND_AT_START.iter().filter(|(name, _)| given.iter().all(|(given, _)| given != *name));
    lines.extend(unset.map(|(name, how)| Line {
        path: format!("flags.{name}"),
        value: Value::Null,
        origin: format!("detected {how}"),
    }));
    lines.sort_by(|a, b| b.path.starts_with("kube").cmp(&a.path.starts_with("kube")).then_with(|| a.path.cmp(&b.path)));
    lines
}

fn line(name: &str, flag: &GivenFlag) -> Line {
    let value = match flag.shown(name).as_slice() {
        [one] => one.as_str().into(),
        many => json!(many),
    };
    let origin = match flag.by {
        GivenBy::Default => Origin::Default,
        GivenBy::CommandLine => Origin::Flag(format!("--{name}")),
        GivenBy::Environment => Origin::Environment(format!("FLANNELD_{}", name.to_uppercase().replace('-', "_"))),
    };
    Line { path: format!("flags.{name}"), value, origin: origin.to_string() }
}

/// The values as a tree, and their origins by path.
fn as_json(lines: &[Line]) -> Value {
    let mut document = Map::new();
    let mut origins = Map::new();
    for line in lines {
        insert(&mut document, &line.path, line.value.clone());
        origins.insert(line.path.clone(), line.origin.as_str().into());
    }
    document.insert("origins".to_owned(), Value::Object(origins));
    Value::Object(document)
}

/// YAML, whose scalars and lists are written as JSON, which is YAML too.
fn as_yaml(lines: &[Line]) -> String {
    let mut text = String::from("# What weft agent would run with, and where each value comes from.\n");
    let mut above: Vec<&str> = Vec::new();
    for line in lines {
        // Sections are written when the first value in them is.
        let mut sections: Vec<&str> = line.path.split('.').collect();
        let Some(name) = sections.pop() else { continue };
        let common = sections.iter().zip(&above).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            let _ = writeln!(text, "{:indent$}{section}:", "", indent = depth * 2);
        }
        let entry = format!("{:indent$}{name}: {}", "", line.value, indent = sections.len() * 2);
        let _ = writeln!(text, "{entry:<48} # {}", line.origin);
        above = sections;
    }
    text
}
