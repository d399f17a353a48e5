//! `--source dir:PATH`: Kubernetes manifests in a directory, watched.
//!
//! Owns the picture of the directory. A file that cannot be read keeps its last good objects and is reported by name
//! and line; only removing a file removes what it defined.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use weft_proxy::{
    model::{ObjectKind, ObjectRef, api::Object},
    plan::Change,
};

use super::{SourceEvent, manifest};
use crate::status::RejectedObject;

pub(crate) use watch::watch;

/// The directory as last read.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    root: PathBuf,
    files: BTreeMap<Arc<Path>, File>,
    /// Which files define an object; the first by name wins.
    defined_in: BTreeMap<ObjectRef, BTreeSet<Arc<Path>>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectRef, Defined>,
    rejected: Vec<RejectedObject>,
}

#[derive(Debug)]
struct Defined {
    line: u64,
    object: Object,
}

impl Directory {
    /// A directory that was not read yet.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }

    /// Reads every file and returns full lists of all kinds.
    ///
    /// # Errors
    /// The directory itself cannot be listed.
    pub(crate) fn read_all(&mut self) -> io::Result<Vec<SourceEvent>> {
        for path in self.manifest_paths()? {
            self.reread(&path);
        }
        let mut lists: BTreeMap<ObjectKind, Vec<Object>> =
            [ObjectKind::Node, ObjectKind::Service, ObjectKind::EndpointSlice].map(|kind| (kind, Vec::new())).into();
        for reference in self.defined_in.keys() {
            if let Some(object) = self.winner(reference) {
                lists.entry(reference.kind).or_default().push(object.clone());
            }
        }
        let mut events: Vec<_> = lists.into_iter().map(|(kind, objects)| SourceEvent::Replace(kind, objects)).collect();
        events.push(SourceEvent::Unreadable(self.rejected()));
        Ok(events)
    }

    /// Reads the named files again, or all of them when `paths` is empty, and returns what changed.
    ///
    /// # Errors
    /// The directory itself cannot be listed; nothing was changed then.
    pub(crate) fn refresh(&mut self, paths: &BTreeSet<PathBuf>) -> io::Result<Vec<SourceEvent>> {
        let paths = if paths.is_empty() {
            let mut all = self.manifest_paths()?;
            all.extend(self.files.keys().map(|path| path.to_path_buf()));
            all
        } else {
            paths.iter().filter(|path| is_manifest(path)).cloned().collect()
        };
        let rejected_before = self.rejected();
        let mut events = Vec::new();
        for path in paths {
            events.extend(self.reread(&path).into_iter().map(SourceEvent::Change));
        }
        let rejected = self.rejected();
        if rejected != rejected_before {
            events.push(SourceEvent::Unreadable(rejected));
        }
        Ok(events)
    }

    fn manifest_paths(&self) -> io::Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if is_manifest(&path) {
                paths.insert(path);
            }
        }
        Ok(paths)
    }

    /// Reads one file and returns what that changes for the planner.
    fn reread(&mut self, path: &Path) -> Vec<Change> {
        let path: Arc<Path> = path.into();
        let new = match read_file(&path) {
            Ok(Some(file)) => file,
            Ok(None) => File::default(),
            Err(rejected) => {
                self.files.entry(path).or_default().rejected = vec![rejected];
                return Vec::new();
            }
        };
        let old_references = self.files.get(&path).into_iter().flat_map(|file| file.objects.keys());
        let touched: BTreeSet<ObjectRef> = old_references.chain(new.objects.keys()).cloned().collect();
        let before: Vec<_> = touched.iter().map(|reference| self.winner(reference).cloned()).collect();

        for reference in &touched {
            let defining = self.defined_in.entry(reference.clone()).or_default();
            if new.objects.contains_key(reference) {
                defining.insert(path.clone());
            } else {
                defining.remove(&path);
            }
            if defining.is_empty() {
                self.defined_in.remove(reference);
            }
        }
        if new.objects.is_empty() && new.rejected.is_empty() {
            self.files.remove(&path);
        } else {
            self.files.insert(path, new);
        }

        let changed =
            touched.into_iter().zip(before).filter_map(|(reference, before)| match (before, self.winner(&reference)) {
                (None, None) => None,
                (Some(before), Some(after)) if before == *after => None,
                (_, Some(after)) => Some(Change::Apply(after.clone())),
                (Some(_), None) => Some(Change::Delete(reference)),
            });
        changed.collect()
    }

    fn winner(&self, reference: &ObjectRef) -> Option<&Object> {
        let path = self.defined_in.get(reference)?.first()?;
        Some(&self.files.get(path)?.objects.get(reference)?.object)
    }

    /// Everything that is wrong in the directory now, sorted by file.
    fn rejected(&self) -> Vec<RejectedObject> {
        let mut rejected: Vec<_> = self.files.values().flat_map(|file| file.rejected.iter().cloned()).collect();
        for (reference, paths) in self.defined_in.iter().filter(|(_, paths)| paths.len() > 1) {
            let mut paths = paths.iter();
            let Some(winner) = paths.next() else { continue };
            for path in paths {
                let line = self.files.get(path).and_then(|file| file.objects.get(reference)).map_or(0, |at| at.line);
                rejected.push(RejectedObject {
                    object: reference.to_string(),
                    reason: format!("{}:{line}: defined in {} too, which is used", file_name(path), file_name(winner)),
                });
            }
        }
        rejected
    }
}

/// Files the directory source reads: `*.yaml`, `*.yml`, `*.json`, without hidden ones (editors' temporary files).
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// `None` when the file is gone.
fn read_file(path: &Path) -> Result<Option<File>, RejectedObject> {
    let reject = |reason: String| RejectedObject { object: file_name(path), reason };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reject(format!("{}: {error}", path.display()))),
    };
    let parsed = manifest::parse(&text)
        .map_err(|error| reject(format!("{}:{}: {}", file_name(path), error.line, error.problem)))?;
    // A writer that truncates before it writes shows an empty file for a moment; that must not look like a deletion.
    if parsed.objects.is_empty() && parsed.other_kinds.is_empty() {
        return Err(reject(format!("{}:1: no object in it; remove the file to remove its objects", file_name(path))));
    }
    let mut file = File::default();
    for (line, object) in parsed.objects {
        let reference = object.reference();
        if let Some(first) = file.objects.get(&reference) {
            let reason = format!("{}:{line}: defined at line {} too, which is used", file_name(path), first.line);
            file.rejected.push(RejectedObject { object: reference.to_string(), reason });
            continue;
        }
        file.objects.insert(reference, Defined { line, object });
    }
    Ok(Some(file))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
