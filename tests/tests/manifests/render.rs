//! The overlays as `kubectl apply -k` sees them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// The overlays, each complete in itself.
pub(crate) const OVERLAYS: &[&str] =
    &["kubeadm", "no-kube-proxy", "proxy-only", "overlay-only", "migrate-from-flannel", "etcd"];

/// From this minor version on `kubectl` has a kustomize that takes directories as `resources`, and `patches`.
const MODERN: u32 = 21;

/// `manifests/`.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests")
}

/// A copy of `manifests/` for the `kubectl` of this machine.
pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn copy() -> Result<Self> {
        let copy = TempDir::new()?;
        copy_directory(&directory(), copy.path(), minor_version()? < MODERN)?;
        Ok(Self(copy))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Directory of an overlay.
    pub(crate) fn overlay(&self, name: &str) -> PathBuf {
        self.0.path().join("overlays").join(name)
    }

    /// Directory of the rules and the dashboard.
    pub(crate) fn monitoring(&self) -> PathBuf {
        self.0.path().join("monitoring")
    }
}

/// All objects of a directory with a kustomization.
pub(crate) fn objects(kustomization: &Path) -> Result<Vec<Value>> {
    let text = kubectl(&["kustomize", &kustomization.display().to_string()])?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    ensure!(!objects.is_empty(), "{} has no objects", kustomization.display());
    Ok(objects)
}

/// All objects of an overlay.
pub(crate) fn overlay(name: &str) -> Result<Vec<Value>> {
    objects(&Tree::copy()?.overlay(name)).with_context(|| format!("overlay {name}"))
}

/// The object of a kind that there is one of.
pub(crate) fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
    ensure!(found.len() == 1, "{} objects of kind {kind}", found.len());
    Ok(found[0])
}

fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("kubectl").args(arguments).output().context("start kubectl")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {arguments:?}: {errors}");
    // kustomize says there what it will not take much longer.
    ensure!(errors.is_empty(), "kubectl {arguments:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn minor_version() -> Result<u32> {
    let version: Value = serde_json::from_str(&kubectl(&["version", "--client", "-o", "json"])?)?;
    let minor = version["clientVersion"]["minor"].as_str().context("minor version of kubectl")?;
    // A vendor's build has a plus behind it.
    minor.trim_end_matches('+').parse().with_context(|| format!("minor version of kubectl: {minor:?}"))
}

fn copy_directory(from: &Path, to: &Path, old: bool) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("name of a file")?);
        if path.is_dir() {
            copy_directory(&path, &target, old)?;
        } else if old && path.ends_with("kustomization.yaml") {
            fs::write(target, in_old_words(&fs::read_to_string(path)?)?)?;
        } else {
            fs::copy(path, target)?;
        }
    }
    Ok(())
}

/// A kustomization for kustomize 2.0, which Debian 12's kubectl has: directories are `bases`, and patches are only named.
fn in_old_words(text: &str) -> Result<String> {
    let mut kustomization: Value = serde_saphyr::from_str(text)?;
    let resources = kustomization["resources"].as_array().cloned().unwrap_or_default();
    let (files, bases): (Vec<_>, Vec<_>) =
        resources.into_iter().partition(|name| name.as_str().is_some_and(|name| name.ends_with(".yaml")));
    let patches = kustomization["patches"].as_array().cloned().unwrap_or_default();
    let patches: Vec<Value> = patches.into_iter().map(|patch| patch["path"].clone()).collect();
    let fields = kustomization.as_object_mut().context("a kustomization")?;
    fields.remove("patches");
    for (name, list) in [("resources", files), ("bases", bases), ("patchesStrategicMerge", patches)] {
        fields.insert(name.to_owned(), list.into());
    }
    Ok(kustomization.to_string())
}
