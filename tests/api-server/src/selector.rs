//! Label and field selectors: `key`, `!key`, `key=value`, `key!=value`, joined by commas.

use serde_json::Value;

/// Which objects a client wants to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    /// Empty for all.
    namespace: String,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    Equals(String, String),
    Differs(String, String),
}

impl Selector {
    /// Reads both selectors of a request for one namespace, or for all.
    pub(crate) fn parse(namespace: &str, labels: &str, fields: &str) -> Self {
        Self { namespace: namespace.to_owned(), labels: requirements(labels), fields: requirements(fields) }
    }

    /// Whether the client sees this object.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let field = |key: &str| object.pointer(&format!("/{}", key.replace('.', "/"))).and_then(Value::as_str);
        (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace)
            && self.labels.iter().all(|requirement| requirement.holds(label))
            && self.fields.iter().all(|requirement| requirement.holds(field))
    }
}

fn requirements(text: &str) -> Vec<Requirement> {
    let one = |part: &str| {
        if let Some((key, value)) = part.split_once("!=") {
            Requirement::Differs(key.to_owned(), value.to_owned())
        } else if let Some((key, value)) = part.split_once('=') {
            Requirement::Equals(key.to_owned(), value.trim_start_matches('=').to_owned())
        } else if let Some(key) = part.strip_prefix('!') {
            Requirement::Absent(key.to_owned())
        } else {
            Requirement::Exists(part.to_owned())
        }
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

impl Requirement {
    fn holds<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
            Self::Equals(key, wanted) => value(key) == Some(wanted),
            Self::Differs(key, unwanted) => value(key) != Some(unwanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selector;

    #[test]
    fn selectors_pick_what_kube_proxy_would_see() {
        let service = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "10.96.0.1"}});
        let headless = json!({"metadata": {"name": "b"}, "spec": {"clusterIP": "None"}});
        let fields = Selector::parse("", "", "spec.clusterIP!=None");
        assert!(fields.matches(&service) && !fields.matches(&headless));
        let labels = Selector::parse("", "!x", "");
        assert!(!labels.matches(&service) && labels.matches(&headless));
        assert!(Selector::parse("", "x=1", "metadata.name=a").matches(&service));
    }
}
