//! A YAML file as a tree that knows its lines, so that what is wrong can be pointed at.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};

/// A file's content, each leaf by its path such as `iptables.masqueradeBit`, with its line.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Leaves; lists are leaves too. `null` ones are left out, since Kubernetes takes them for absent.
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// Why the strict reading failed, if only that did: keys given twice (kube-proxy.md 14.15).
    pub(super) lenient: Option<String>,
}

/// One leaf.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// What it holds.
    pub(super) value: Value,
    /// Where its key is, from 1.
    pub(super) line: u64,
}

impl Document {
    /// Reads YAML or JSON. Keys given twice are noted, and the last one counts, as in kube-proxy.
    ///
    /// # Errors
    /// It is neither, with the line.
    pub(super) fn parse(text: &str, opaque: impl Fn(&str) -> bool) -> Result<Self, String> {
        let (tree, lenient) = match serde_saphyr::from_str::<Tree>(text) {
            Ok(tree) => (tree, None),
            Err(strict) => {
                let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
                let strict = strict.without_snippet().to_string();
                match serde_saphyr::from_str_with_options::<Tree>(text, options) {
                    Ok(tree) => (tree, Some(strict)),
                    Err(_) => return Err(strict),
                }
            }
        };
        let mut leaves = BTreeMap::new();
        match tree {
            Tree::Map(entries) => flatten("", entries, &opaque, &mut leaves),
            Tree::Leaf(_) => return Err("must be a mapping of fields".to_owned()),
        }
        Ok(Self { leaves, lenient })
    }
}

fn flatten(prefix: &str, entries: Vec<Entry>, opaque: &impl Fn(&str) -> bool, leaves: &mut BTreeMap<String, Leaf>) {
    for Entry { key, line, tree } in entries {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match tree {
            Tree::Map(entries) if !opaque(&path) => flatten(&path, entries, opaque, leaves),
            Tree::Leaf(Value::Null) => {}
            tree => {
                leaves.insert(path, Leaf { value: tree.into_value(), line });
            }
        }
    }
}

/// `file:line: field`, or without the line when there is none.
pub(super) fn place(path: &Path, line: u64, field: &str) -> String {
    format!("{}:{line}: {field}", path.display())
}

enum Tree {
    Leaf(Value),
    Map(Vec<Entry>),
}

struct Entry {
    key: String,
    line: u64,
    tree: Tree,
}

impl Tree {
    fn into_value(self) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::Map(entries) => {
                let fields: Map<_, _> = entries.into_iter().map(|entry| (entry.key, entry.tree.into_value())).collect();
                Value::Object(fields)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Tree>()? {
            list.push(item.into_value());
        }
        Ok(Tree::Leaf(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = fields.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push(Entry { key: key.value, line, tree: fields.next_value()? });
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Document;

    #[test]
    fn leaves_have_paths_values_and_lines() {
        let text = "mode: nftables\niptables:\n  masqueradeBit: 14\n  syncPeriod: 0s\nfeatureGates: {A: true}\nnodePortAddresses: null\nlist: [a, b]\n";
        let document = Document::parse(text, |path| path == "featureGates").unwrap();
        let leaves: Vec<_> = document.leaves.iter().map(|(path, leaf)| (path.as_str(), leaf.line)).collect();
        assert_eq!(
            leaves,
            [("featureGates", 5), ("iptables.masqueradeBit", 3), ("iptables.syncPeriod", 4), ("list", 7), ("mode", 1)]
        );
        assert_eq!(document.leaves["featureGates"].value, json!({"A": true}));
        assert_eq!(document.leaves["list"].value, json!(["a", "b"]));
        assert_eq!(document.lenient, None);
    }

    #[test]
    fn a_key_given_twice_is_noted_and_the_last_one_counts() {
        let document = Document::parse("mode: a\nmode: b\n", |_| false).unwrap();
        assert_eq!(document.leaves["mode"].value, json!("b"));
        assert!(document.lenient.unwrap().contains("mode"));
        assert!(Document::parse("mode: [\n", |_| false).is_err());
        assert!(Document::parse("just text", |_| false).is_err());
    }
}
