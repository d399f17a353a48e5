//! Objects that are there from the start.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::Value;

use crate::store::{Address, Store};

/// Stores everything in the directory's files.
pub(crate) fn directory(store: &mut Store, directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        for object in read(&path).with_context(|| path.display().to_string())? {
            store.put(Address::of(&object).with_context(|| format!("no kind or name: {object}"))?, object);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let documents: Vec<Value> = match path.extension() {
        // Ten thousand Services are read as JSON in a tenth of a second, as YAML in many.
        Some(extension) if extension == "json" => vec![serde_json::from_str(&text)?],
        _ => serde_saphyr::from_multiple(&text)?,
    };
    let objects = documents.into_iter().flat_map(|mut document| match document["items"].take() {
        Value::Array(items) => items,
        _ => vec![document],
    });
    Ok(objects.filter(|object| object["kind"].is_string()).collect())
}
