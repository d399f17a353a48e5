//! Rules of the source tree.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Longest source file (style guide: split at 500).
const LINES: usize = 500;

/// Workspace lints mean nothing in a crate that does not ask for them.
pub(super) fn lints_are_inherited() -> Result<()> {
    let mut without = Vec::new();
    for member in workspace::members()? {
        let manifest = workspace::read_toml(&format!("{member}/Cargo.toml"))?;
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            without.push(member);
        }
    }
    if without.is_empty() {
        return Ok(());
    }
    bail!("without `[lints] workspace = true`: {}", without.join(", "))
}

/// A file that fits a few screens can be read by someone new.
pub(super) fn files_are_short() -> Result<()> {
    let mut long = Vec::new();
    for path in sources()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().count();
        if lines > LINES {
            let path = path.strip_prefix(workspace::root()).unwrap_or(&path);
            long.push(format!("{} ({lines} lines)", path.display()));
        }
    }
    if long.is_empty() {
        return Ok(());
    }
    bail!("longer than {LINES} lines: {}", long.join(", "))
}

/// All Rust files of the members.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for member in workspace::members()? {
        collect(&workspace::root().join(member), &mut found)?;
    }
    // A member may lie inside another one.
    found.sort();
    found.dedup();
    Ok(found)
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
