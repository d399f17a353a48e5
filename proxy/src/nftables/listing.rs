//! Reads back our table from `nft -j list table`.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    objects::{Chain, Element, EndpointMap, Value},
    plan::Content,
    ruleset,
};

/// What the table holds, or `None` if it is not of our layout or somebody has changed it in a way we do not undo piecemeal.
///
/// # Errors
/// The text is not nft's JSON.
pub(crate) fn parse_table(json: &[u8]) -> Result<Option<Content>, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(json)?;
    Ok(content(&listing))
}

fn content(listing: &Listing) -> Option<Content> {
    let mut content = Content::default();
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in listing.nftables.iter().filter_map(|item| item.rule.as_ref()) {
        *rules.entry(&rule.chain).or_default() += 1;
    }
    let mut missing_chains: BTreeMap<String, usize> =
        ruleset::static_chains().into_iter().map(|c| (c.name, c.rules.len())).collect();
    missing_chains.insert(ruleset::layout_mark(), 0);
    let mut missing_collections = ruleset::static_collection_names();

    for item in &listing.nftables {
        if let Some(Named { name }) = &item.chain {
            let rules = rules.get(name.as_str()).copied().unwrap_or(0);
            match (missing_chains.remove(name), Chain::parse(name)) {
                (Some(expected), _) if rules == expected => {}
                (None, Some(chain)) if rules == 1 => {
                    content.chains.insert(chain);
                }
                _ => return None,
            }
        }
        let elements = match (&item.set, &item.map) {
            (Some(set), _) => {
                let keys = set.elem.iter().map(|key| Some((set.element(key)?, Value::Present)));
                collection(&set.name, &mut missing_collections, &mut content)?;
                keys.collect::<Option<Vec<_>>>()?
            }
            (_, Some(map)) => {
                let pairs = map.elem.iter().map(|(k, v)| Some((map.element(k)?, v.value()?)));
                collection(&map.name, &mut missing_collections, &mut content)?;
                pairs.collect::<Option<Vec<_>>>()?
            }
            _ => continue,
        };
        content.elements.extend(elements);
    }
    (missing_chains.is_empty() && missing_collections.is_empty()).then_some(content)
}

/// Ticks off one set or map; `None` if it is none of ours.
fn collection(name: &str, missing: &mut Vec<String>, content: &mut Content) -> Option<()> {
    if let Some(map) = EndpointMap::parse(name) {
        content.maps.insert(map);
        return Some(());
    }
    let index = missing.iter().position(|expected| expected == name)?;
    missing.swap_remove(index);
    Some(())
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

/// One of these is set; what else nft lists (`metainfo`, `table`) does not matter.
#[derive(Deserialize)]
struct Item {
    set: Option<Collection<Key>>,
    map: Option<Collection<(Key, Data)>>,
    chain: Option<Named>,
    rule: Option<InChain>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct InChain {
    chain: String,
}

#[derive(Deserialize)]
struct Collection<T> {
    name: String,
    #[serde(default = "Vec::new")]
    elem: Vec<T>,
}

impl<T> Collection<T> {
    fn element(&self, key: &Key) -> Option<Element> {
        let parts = key.parts()?;
        Element::parse(&self.name, &parts.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Key {
    Scalar(Scalar),
    Concat {
        concat: Vec<Scalar>,
    },
    /// With a counter or other attributes.
    Element {
        elem: Attributed,
    },
    Foreign(IgnoredAny),
}

#[derive(Deserialize)]
struct Attributed {
    val: Box<Key>,
}

impl Key {
    fn parts(&self) -> Option<Vec<String>> {
        match self {
            Self::Scalar(scalar) => Some(vec![scalar.text()]),
            Self::Concat { concat } => Some(concat.iter().map(Scalar::text).collect()),
            Self::Element { elem } => elem.val.parts(),
            Self::Foreign(_) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Endpoint {
        concat: (std::net::IpAddr, u16),
    },
    Jump {
        jump: Destination,
    },
    Goto {
        goto: Destination,
    },
    Drop {
        #[serde(rename = "drop")]
        _drop: (),
    },
    Foreign(IgnoredAny),
}

#[derive(Deserialize)]
struct Destination {
    target: String,
}

impl Data {
    fn value(&self) -> Option<Value> {
        match self {
            Self::Endpoint { concat } => Some(Value::Endpoint((*concat).into())),
            Self::Jump { jump } => Chain::parse(&jump.target).map(Value::Chain),
            Self::Goto { goto } => (goto.target == ruleset::REJECT_CHAIN).then_some(Value::Reject),
            Self::Drop { .. } => Some(Value::Drop),
            Self::Foreign(_) => None,
        }
    }
}
