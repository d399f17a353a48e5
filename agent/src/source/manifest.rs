//! Kubernetes manifests: YAML or JSON text with many documents, turned into objects with the line each came from.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use weft_proxy::model::{
    ObjectKind,
    api::{EndpointSlice, Node, Object, Service, TypeMeta},
};

/// A manifest that cannot be read as a whole. The caller keeps the last good state of the file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub(crate) struct ManifestError {
    /// Line in the file, from 1.
    pub(crate) line: u64,
    /// What is wrong there.
    pub(crate) problem: String,
}

/// What one file holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    /// The objects Weft reads, with the line their document starts at.
    pub(crate) objects: Vec<(u64, Object)>,
    /// Documents of kinds that Weft does not read: `kind` and line. Usual in a folder of an application's manifests.
    pub(crate) other_kinds: Vec<(u64, String)>,
}

/// A `kind: List` (or `ServiceList` ...), as `kubectl get -o yaml` prints it.
#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

/// Reads all documents of a manifest file.
///
/// # Errors
/// The first document that is not YAML, has no `kind`, or does not have the shape of its kind; with the line in the file.
pub(crate) fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let mut manifest = Manifest::default();
    for (line, document) in documents(text) {
        let type_meta: TypeMeta = read(document, line)?;
        let object = match (type_meta.kind.as_str(), type_meta.object_kind()) {
            ("", _) => return Err(ManifestError { line, problem: "the document has no `kind`".to_owned() }),
            (_, Ok(ObjectKind::Service)) => read::<Service>(document, line)?.into(),
            (_, Ok(ObjectKind::EndpointSlice)) => read::<EndpointSlice>(document, line)?.into(),
            (_, Ok(ObjectKind::Node)) => read::<Node>(document, line)?.into(),
            (list, Err(_)) if list.ends_with("List") => {
                let List { items } = read(document, line)?;
                for item in items {
                    read_item(&mut manifest, item, list, line)?;
                }
                continue;
            }
            (_, Err(other)) => {
                manifest.other_kinds.push((line, other.kind));
                continue;
            }
        };
        manifest.objects.push((line, object));
    }
    Ok(manifest)
}

/// One item of a List. The API server leaves `kind` out of the items of a typed list (`ServiceList`).
fn read_item(manifest: &mut Manifest, mut item: Value, list: &str, line: u64) -> Result<(), ManifestError> {
    let item_kind = list.strip_suffix("List").filter(|kind| !kind.is_empty());
    if let (Some(fields), Some(kind)) = (item.as_object_mut(), item_kind) {
        fields.entry("kind").or_insert_with(|| kind.into());
    }
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let wrong =
        |source: serde_json::Error| ManifestError { line, problem: format!("{kind} {name} in the {list}: {source}") };
    if let Err(other) = TypeMeta::deserialize(&item).map_err(wrong)?.object_kind() {
        manifest.other_kinds.push((line, other.kind));
        return Ok(());
    }
    manifest.objects.push((line, Object::deserialize(&item).map_err(wrong)?));
    Ok(())
}

fn read<T: DeserializeOwned>(document: &str, first_line: u64) -> Result<T, ManifestError> {
    serde_saphyr::from_str(document).map_err(|error| ManifestError {
        line: first_line + error.location().map_or(0, |at| at.line().saturating_sub(1)),
        problem: describe(&error),
    })
}

/// The parser's message without its own position, which counts from the document, not from the file.
fn describe(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    match message.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, message)) => message.to_owned(),
        None => message.split(" at line ").next().unwrap_or(message).to_owned(),
    }
}

/// Splits at `---` lines (YAML 1.2 section 9.1.2), leaving out documents without content; with each one's first line.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let is_marker = line.trim_end() == "---" || line.starts_with("--- ");
        if is_marker {
            found.push((start_line, &text[start..offset]));
            start = offset + line.len();
            start_line = number + 1;
        }
        offset += line.len();
    }
    found.push((start_line, &text[start..]));
    found.retain(|(_, document)| has_content(document));
    found
}

fn has_content(document: &str) -> bool {
    document
        .lines()
        .map(str::trim_start)
        .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%') && line.trim_end() != "...")
}

#[cfg(test)]
mod tests;
