//! `/statusz` and `/flagz` (kube-proxy.md 11.2): who is running, and with which flags. As text for people; as objects for
//! programs that ask with `Accept: application/json;v=v1beta1;g=config.k8s.io;as=Statusz` (or `Flagz`).

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

/// Where the metrics server answers.
const PATHS: [&str; 8] =
    ["/configz", "/flagz", "/healthz", "/healthz/ping", "/metrics", "/metrics/slis", "/proxyMode", "/statusz"];

/// Versions of the objects: of Kubernetes 1.36 and of 1.35, which do not differ.
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];

const GROUP: &str = "config.k8s.io";

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// When it started.
    pub(crate) started: Timestamp,
    /// Its flags, without secrets.
    pub(crate) flags: Arc<BTreeMap<String, String>>,
}

/// A page in the form that was asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Page {
    /// For people.
    Text(String),
    /// For programs.
    Object(Value),
}

impl About {
    /// `/statusz`; `None`: there is no such form of it.
    pub(super) fn status(&self, accept: &str, now: Timestamp) -> Option<Page> {
        let up = now.duration_since(self.started).max(SignedDuration::ZERO);
        let (version, seconds) = (env!("CARGO_PKG_VERSION"), up.as_secs());
        let Some(api_version) = asked_for("Statusz", accept)? else {
            let started = self.started.strftime("%a %b %e %H:%M:%S UTC %Y");
            let up = format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60);
            let lines =
                format!("Started: {started}\nUp: {up}\nBinary version: {version}\nPaths: {}\n", PATHS.join(" "));
            return Some(Page::Text(headed("statusz", &lines)));
        };
        let started = self.started.round(Unit::Second).unwrap_or(self.started).to_string();
        Some(Page::Object(json!({
            "kind": "Statusz", "apiVersion": api_version, "metadata": {"name": "weft"},
            "startTime": started, "uptimeSeconds": seconds, "binaryVersion": version, "paths": PATHS,
        })))
    }

    /// `/flagz`; `None`: there is no such form of it.
    pub(super) fn flags(&self, accept: &str) -> Option<Page> {
        let Some(api_version) = asked_for("Flagz", accept)? else {
            let lines = self.flags.iter().fold(String::new(), |mut lines, (name, value)| {
                // Writing into a String does not fail.
                let _ = writeln!(lines, "{name}={value}");
                lines
            });
            return Some(Page::Text(headed("flagz", &lines)));
        };
        Some(Page::Object(json!({
            "kind": "Flagz", "apiVersion": api_version, "metadata": {"name": "weft"}, "flags": *self.flags,
        })))
    }
}

fn headed(page: &str, lines: &str) -> String {
    format!(
        "weft {page}\nWarning: this text is for people, and may change; programs ask for application/json.\n\n{lines}"
    )
}

/// The API version of the object an `Accept` header asks for; `Some(None)`: text, `None`: what there is not.
fn asked_for(kind: &str, accept: &str) -> Option<Option<String>> {
    if accept.trim().is_empty() {
        return Some(None);
    }
    accept.split(',').find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        match media {
            "text/plain" | "text/*" | "*/*" => Some(None),
            "application/json" if parameters.get("g") == Some(&GROUP) && parameters.get("as") == Some(&kind) => {
                let version = parameters.get("v").filter(|version| VERSIONS.contains(version))?;
                Some(Some(format!("{GROUP}/{version}")))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json;v=v1beta1;g=config.k8s.io;as=";

    fn about() -> About {
        let flags = BTreeMap::from([("v", "2"), ("iface", "eth0,eth1")]);
        let flags = flags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        About { started: Timestamp::from_second(1_000_000_000).unwrap(), flags: Arc::new(flags) }
    }

    #[test]
    fn section_11_2_pages_are_text_unless_an_object_is_asked_for() {
        let (about, now) = (about(), Timestamp::from_second(1_000_003_725).unwrap());
        for accept in ["", "*/*", "text/plain", "text/html, */*;q=0.8"] {
            let Some(Page::Text(text)) = about.status(accept, now) else { panic!("{accept}") };
            assert!(text.contains("Started: Sun Sep  9 01:46:40 UTC 2001\nUp: 1 hr 02 min 05 sec\n"), "{text}");
            let Some(Page::Text(text)) = about.flags(accept) else { panic!("{accept}") };
            assert!(text.ends_with("\n\niface=eth0,eth1\nv=2\n"), "{text}");
        }
        for accept in ["application/json", "text/html", &format!("{JSON}Pod"), &JSON.replace("v1beta1", "v9")] {
            assert_eq!((about.status(accept, now), about.flags(accept)), (None, None), "{accept}");
        }
    }

    #[test]
    fn section_11_2_objects_are_the_apis() {
        let (about, now) = (about(), Timestamp::from_second(1_000_000_060).unwrap());
        let Some(Page::Object(status)) = about.status(&format!("{JSON}Statusz"), now) else { panic!("no object") };
        assert_eq!((&status["kind"], &status["apiVersion"]), (&"Statusz".into(), &"config.k8s.io/v1beta1".into()));
        assert_eq!(
            (&status["startTime"], &status["uptimeSeconds"]),
            (&"2001-09-09T01:46:40Z".into(), &60.into()),
            "{status}"
        );
        let Some(Page::Object(flags)) = about.flags(&format!("text/html,{JSON}Flagz")) else { panic!("no object") };
        assert_eq!((&flags["kind"], &flags["flags"]["v"]), (&"Flagz".into(), &"2".into()), "{flags}");
    }
}
