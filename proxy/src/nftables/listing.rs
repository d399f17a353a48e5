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

#[cfg(test)]
mod tests {
    use super::*;

    /// What nft 1.0.6 prints for an empty table of our layout, and `more`.
    fn listing(more: &str) -> String {
        let mut items =
            vec![r#"{"metainfo": {"version": "1.0.6"}}"#.to_owned(), r#"{"table": {"name": "w"}}"#.to_owned()];
        for name in ruleset::static_collection_names() {
            items.push(format!(r#"{{"set": {{"name": "{name}"}}}}"#));
        }
        for chain in ruleset::static_chains() {
            items.push(format!(r#"{{"chain": {{"name": "{}"}}}}"#, chain.name));
            let rule = || format!(r#"{{"rule": {{"chain": "{}", "expr": []}}}}"#, chain.name);
            items.extend(chain.rules.iter().map(|_| rule()));
        }
        items.push(format!(r#"{{"chain": {{"name": "{}"}}}}"#, ruleset::layout_mark()));
        items.push(more.to_owned());
        format!(r#"{{"nftables": [{}]}}"#, items.join(", "))
    }

    #[test]
    fn elements_with_and_without_counters() {
        let map = r#"{"map": {"name": "np-endpoints4-tcp-2", "map": "ipv4_addr . inet_service", "elem": [
            [{"elem": {"val": {"concat": [30080, 0]}, "counter": {"packets": 5, "bytes": 9}}}, {"concat": ["10.0.0.1", 80]}],
            [{"concat": [30080, 1]}, {"concat": ["10.0.0.2", 80]}]]}}"#;
        let content = parse_table(listing(map).as_bytes()).unwrap().unwrap();
        assert_eq!(content.maps.len(), 1);
        let elements: Vec<_> = content.elements.iter().map(|(e, v)| format!("{e} : {v}")).collect();
        assert_eq!(elements, ["30080 . 0 : 10.0.0.1 . 80", "30080 . 1 : 10.0.0.2 . 80"]);
    }

    #[test]
    fn what_somebody_else_put_there_or_took_away_makes_the_table_not_ours() {
        let odd = [
            r#"{"chain": {"name": "mine"}}"#,
            r#"{"rule": {"chain": "nat-prerouting"}}"#,
            r#"{"chain": {"name": "rr4-tcp-2-0"}}"#,
            r#"{"set": {"name": "mine"}}"#,
            r#"{"map": {"name": "endpoints4-tcp-1", "elem": [[{"range": [1, 2]}, "x"]]}}"#,
            r#"{"map": {"name": "endpoints4-tcp-1", "elem": [[{"concat": ["10.0.0.1", 80, 0]}, {"accept": null}]]}}"#,
        ];
        for more in odd {
            assert_eq!(parse_table(listing(more).as_bytes()).unwrap(), None, "{more}");
        }
        let whole = listing(r#"{"table": {}}"#);
        assert!(parse_table(whole.as_bytes()).unwrap().is_some());
        assert_eq!(parse_table(whole.replace("filter-input", "filter-inpux").as_bytes()).unwrap(), None);
        parse_table(b"table inet weft-proxy").unwrap_err();
    }
}
