//! Name servers: nothing here is set up, it is passed to the runtime.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// Name servers of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

/// `runtimeConfig.dns`: the same with other names, and without a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeDns {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl RuntimeDns {
    /// `None` if it says nothing, as runtimes do that pass the capability for every pod.
    pub(crate) fn stated(self) -> Option<Dns> {
        let dns =
            Dns { nameservers: self.servers, domain: String::new(), search: self.searches, options: self.options };
        (dns != Dns::default()).then_some(dns)
    }
}

impl Dns {
    /// Reads `ipam.resolvConf`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|error| Error::new(Code::Io, format!("read ipam.resolvConf {}: {error}", path.display())))?;
        Ok(Self::parse(&text))
    }

    /// As resolv.conf(5): unknown lines are left out; nameservers and options add up.
    fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next() else { continue };
            let values = words.map(str::to_owned);
            match keyword {
                "nameserver" => dns.nameservers.extend(values.take(1)),
                "domain" => dns.domain = values.take(1).collect(),
                "search" => dns.search = values.collect(),
                "options" => dns.options.extend(values),
                _ => {}
            }
        }
        dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_resolv_conf_is_read() {
        let text = "# made by hand\nnameserver 10.96.0.10\nnameserver fd00::a trailing\n;x\ndomain old\n\
                    search a.local\nsearch default.svc svc  \noptions ndots:5 edns0\nsortlist 10.0.0.0\nnameserver\n";
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let expected = Dns {
            nameservers: words("10.96.0.10 fd00::a"),
            domain: "old".into(),
            search: words("default.svc svc"),
            options: words("ndots:5 edns0"),
        };
        assert_eq!(Dns::parse(text), expected);
    }

    #[test]
    fn a11_a_runtime_that_states_nothing_overrides_nothing() {
        assert_eq!(RuntimeDns::default().stated(), None);
        let stated = RuntimeDns { servers: vec!["10.0.0.1".into()], ..RuntimeDns::default() }.stated();
        assert_eq!(stated.unwrap().nameservers, ["10.0.0.1"]);
    }
}
