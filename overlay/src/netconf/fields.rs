//! Reads one JSON object field by field and collects every mistake instead of stopping at the first.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr, ops::RangeInclusive};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::family::{self, Family};

/// One mistake in `net-conf.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} is not allowed; allowed: {allowed}")]
pub struct NetConfError {
    /// The field, as flannel spells it, such as `Backend.VNI`.
    pub field: String,
    /// What was given, as JSON, or `absent`.
    pub value: String,
    /// What may be given.
    pub allowed: String,
}

/// The fields of one object. Key case does not matter, because flannel reads it with Go's encoding/json; of two keys that
/// differ in case the last wins, and unknown keys are ignored.
pub(super) struct Fields<'a> {
    prefix: &'static str,
    values: BTreeMap<String, &'a Value>,
    mistakes: Vec<NetConfError>,
}

impl<'a> Fields<'a> {
    /// `prefix` goes before field names in mistakes.
    pub(super) fn new(prefix: &'static str, object: &'a Map<String, Value>) -> Self {
        let values = object
            .iter()
            // Go leaves a field alone when it is null, so null means absent.
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.to_lowercase(), value))
            .collect();
        Self { prefix, values, mistakes: Vec::new() }
    }

    pub(super) fn into_mistakes(self) -> Vec<NetConfError> {
        self.mistakes
    }

    pub(super) fn raw(&self, name: &str) -> Option<&'a Value> {
        self.values.get(&name.to_lowercase()).copied()
    }

    pub(super) fn refuse(&mut self, name: &str, value: impl Display, allowed: impl Into<String>) {
        self.mistakes.push(NetConfError {
            field: format!("{}{name}", self.prefix),
            value: value.to_string(),
            allowed: allowed.into(),
        });
    }

    pub(super) fn boolean(&mut self, name: &str, default: bool) -> bool {
        match self.raw(name) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.refuse(name, other, "true or false");
                default
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.raw(name)?;
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                self.refuse(name, value, format!("{} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A CIDR of `family`; host bits are dropped, as flannel drops them.
    pub(super) fn network(&mut self, name: &str, family: Family) -> Option<IpNetwork> {
        let allowed = format!("an {family} network in CIDR notation");
        let Some(value) = self.raw(name) else {
            self.refuse(name, "absent", allowed);
            return None;
        };
        let parsed = value
            .as_str()
            // Without the slash `IpNetwork` would take a lone address for a network of one.
            .filter(|text| text.contains('/'))
            .and_then(|text| text.parse::<IpNetwork>().ok())
            .filter(|network| Family::of(network.ip()) == family)
            .and_then(|network| family::network(network.ip(), network.prefix()));
        if parsed.is_none() {
            self.refuse(name, value, allowed);
        }
        parsed
    }

    pub(super) fn address(&mut self, name: &str, family: Family) -> Option<IpAddr> {
        let value = self.raw(name)?;
        let parsed = value
            .as_str()
            .and_then(|text| text.parse::<IpAddr>().ok())
            .filter(|address| Family::of(*address) == family);
        if parsed.is_none() {
            self.refuse(name, value, format!("an {family} address"));
        }
        parsed
    }
}
