//! The effective KubeProxyConfiguration: defaults, then the file, then flags, each value with where it came from.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    Mistakes, conntrack,
    document::{Document, Leaf, place},
    fields::{Effect, FIELDS, Field, Kind, field},
};
use crate::cli::{Given, SERVERS_AND_LOG, WITHOUT_EFFECT};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// Every field's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings(BTreeMap<&'static str, Setting>);

/// A field's value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// The value.
    pub(crate) value: Value,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody gave it.
    Default,
    /// A file.
    File { path: PathBuf, line: u64 },
    /// A flag, with its dashes.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// Found on the node.
    Detected(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment ${name}"),
            Self::Detected(how) => write!(f, "detected: {how}"),
        }
    }
}

/// The configuration file, read but not yet under the flags.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct KubeProxyDocument {
    path: PathBuf,
    leaves: BTreeMap<String, Leaf>,
}

impl KubeProxyDocument {
    /// Reads the file, noting every mistake in it. Unknown fields are only warned of, as by kube-proxy (14.15).
    pub(super) fn read(path: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        let origin = "--kube-proxy-config";
        let text = fs::read_to_string(path)
            .map_err(|error| mistakes.add(origin, path.display(), format!("cannot be read: {error}")))
            .ok()?;
        let opaque = |path: &str| field(path).is_some_and(|field| field.kind == Kind::Any);
        let document = Document::parse(&text, opaque)
            .map_err(|error| mistakes.add(origin, path.display(), format!("is not YAML: {error}")))
            .ok()?;
        if let Some(problem) = document.lenient {
            mistakes.notice(format!("{}: {problem}; the last one counts", path.display()));
        }
        let mut leaves = document.leaves;
        for (name, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            let leaf = leaves.remove(name).unwrap_or(Leaf { value: Value::Null, line: 1 });
            if leaf.value != expected {
                mistakes.add(place(path, leaf.line, name), shown(&leaf.value), format!("must be {expected}"));
            }
        }
        leaves.retain(|name, leaf| keep(path, name, leaf, mistakes));
        Some(Self { path: path.to_owned(), leaves })
    }

    /// The value of a field that is in the file.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.leaves.get(field).map(|leaf| &leaf.value)
    }

    /// How a field is named in messages: `file:line: field`.
    pub(super) fn origin(&self, field: &str) -> String {
        match self.leaves.get(field) {
            Some(leaf) => place(&self.path, leaf.line, field),
            None => format!("{}: {field}", self.path.display()),
        }
    }
}

/// Whether a leaf of the file counts; what is wrong with it is noted.
fn keep(path: &Path, name: &str, leaf: &Leaf, mistakes: &mut Mistakes) -> bool {
    let Some(field) = field(name) else {
        let above = format!("{name}.");
        // A section that should be a mapping, or is an empty one, is no unknown field.
        if FIELDS.iter().any(|field| field.path.starts_with(&above)) {
            mistakes.add(place(path, leaf.line, name), shown(&leaf.value), "must be a mapping of fields");
        } else {
            mistakes.notice(format!("{}: unknown field of {KIND}, ignored", place(path, leaf.line, name)));
        }
        return false;
    };
    if let Err(problem) = field.check(&leaf.value) {
        mistakes.add(place(path, leaf.line, name), shown(&leaf.value), problem);
        return false;
    }
    !(is_zero(&leaf.value) && zero_is_default(field))
}

/// What Go takes for "not given" where a type has no pointer; kubeadm writes such values all over the file.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(switch) => !switch,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || conntrack::duration(text) == Some(Duration::ZERO),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn zero_is_default(field: &Field) -> bool {
    match field.kind {
        Kind::Duration => !MAY_BE_ZERO.contains(&field.path),
        Kind::Text => true,
        _ => matches!(field.effect, Effect::None(_)),
    }
}

/// Times whose 0 in the file is 0: pointers in kube-proxy's types.
const MAY_BE_ZERO: &[&str] = &["conntrack.tcpCloseWaitTimeout", "conntrack.tcpEstablishedTimeout"];

/// A value as messages show it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Settings {
    /// Lays the flags over the file over the defaults.
    pub(super) fn resolve(given: &Given, file: &KubeProxyDocument, mistakes: &mut Mistakes) -> Self {
        let settings = FIELDS.iter().map(|field| (field.path, resolve(field, given, file, mistakes))).collect();
        let settings = Self(settings);
        settings.say_what_has_no_effect(given, mistakes);
        settings
    }

    /// A field's setting.
    ///
    /// # Panics
    /// There is no such field: paths are constants.
    pub(crate) fn get(&self, path: &str) -> &Setting {
        self.0.get(path).expect("paths are those of the table")
    }

    /// A field of text.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.get(path).value.as_str().unwrap_or_default()
    }

    /// A switch.
    pub(crate) fn boolean(&self, path: &str) -> bool {
        self.get(path).value.as_bool().unwrap_or_default()
    }

    /// A whole number.
    pub(crate) fn whole(&self, path: &str) -> i64 {
        self.get(path).value.as_i64().unwrap_or_default()
    }

    /// A time.
    pub(crate) fn duration(&self, path: &str) -> Duration {
        conntrack::duration(self.text(path)).unwrap_or_default()
    }

    /// Puts in what was derived from something else.
    pub(super) fn set(&mut self, path: &'static str, value: impl Into<Value>, origin: Origin) {
        self.0.insert(path, Setting { value: value.into(), origin });
    }

    /// Every field with its setting, by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.0.iter().map(|(path, setting)| (*path, setting))
    }

    /// The effective configuration as a KubeProxyConfiguration.
    pub(crate) fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("apiVersion".to_owned(), API_VERSION.into());
        document.insert("kind".to_owned(), KIND.into());
        for (path, setting) in self.iter() {
            insert(&mut document, path, setting.value.clone());
        }
        Value::Object(document)
    }

    /// Paths whose values differ.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        self.iter().filter(|(path, setting)| setting.value != other.get(path).value).map(|(path, _)| path).collect()
    }

    /// Takes a field over from another configuration.
    pub(crate) fn copy(&mut self, path: &'static str, from: &Self) {
        self.0.insert(path, from.get(path).clone());
    }

    fn say_what_has_no_effect(&self, given: &Given, mistakes: &mut Mistakes) {
        for field in FIELDS {
            let Effect::None(why) = field.effect else { continue };
            let setting = self.get(field.path);
            if setting.origin != Origin::Default && setting.value != field.default_value() {
                let place = match &setting.origin {
                    Origin::File { path, line } => place(path, *line, field.path),
                    other => other.to_string(),
                };
                mistakes.notice(format!("{place}: has no effect: {why}"));
            }
        }
        for (name, _, why) in WITHOUT_EFFECT {
            if given.value(name).is_some() {
                mistakes.notice(format!("flag --{name}: has no effect: {why}"));
            }
        }
    }
}

fn resolve(field: &Field, given: &Given, file: &KubeProxyDocument, mistakes: &mut Mistakes) -> Setting {
    let from_file = file.leaves.get(field.path);
    // kube-proxy ignores an empty value of these, and stays with the default (section 16).
    let address = field.path.ends_with("Address");
    let flag = given.value(field.flag).filter(|text| !(address && text.is_empty()));
    if let Some(text) = flag {
        let name = format!("--{}", field.flag);
        if let Some(leaf) = from_file {
            mistakes.notice(format!("flag {name} wins over {}", place(&file.path, leaf.line, field.path)));
        }
        let value = field.value_of(text);
        match value.ok_or_else(|| field.kind.allowed()).and_then(|value| field.check(&value).map(|()| value)) {
            Ok(value) => return Setting { value, origin: Origin::Flag(name) },
            // The others have their own checks where they are used.
            Err(problem) if SERVERS_AND_LOG.contains(&field.flag) || matches!(field.effect, Effect::None(_)) => {
                mistakes.add(name, text, problem);
            }
            Err(_) => {}
        }
    } else if let Some(Leaf { value, line }) = from_file {
        let origin = Origin::File { path: file.path.clone(), line: *line };
        return Setting { value: value.clone(), origin };
    }
    Setting { value: field.default_value(), origin: Origin::Default }
}

/// Inserts at a dotted path, making the sections on the way.
pub(crate) fn insert(document: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            document.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = document.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
