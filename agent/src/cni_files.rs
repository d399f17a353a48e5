//! What the container runtime reads: the plugin's binary, and the configuration list whose presence tells kubelet that
//! the node's network is ready.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::cli::PathArgs;

/// Early in the order of names: the runtime takes the first configuration it finds.
const LIST: &str = "10-weft.conflist";

/// Where the plugin keeps its reservations, below `--state-dir`.
pub(crate) const NETWORKS: &str = "cni/networks";

/// The plugin; its name is the `type` in the list.
const PLUGIN: &str = "weft-cni";

/// Installs the plugin, where it lies beside the running agent, and then the list.
///
/// # Errors
/// A directory cannot be written.
pub(crate) fn install(paths: &PathArgs) -> io::Result<()> {
    let beside = std::env::current_exe()?.with_file_name(PLUGIN);
    if beside.is_file() {
        let installed = paths.cni_bin_dir.join(PLUGIN);
        replace(&installed, &fs::read(&beside)?, 0o755)?;
    }
    replace(&list_path(paths), list(paths).as_bytes(), 0o644)
}

/// Removes the list; a missing one is fine. The plugin stays: the runtime needs it to remove the pods that still run.
///
/// # Errors
/// The file cannot be removed.
pub(crate) fn remove(paths: &PathArgs) -> io::Result<()> {
    match fs::remove_file(list_path(paths)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a file in place at once. One with the same content is left alone, so that the runtime does not reload.
///
/// The temporary file lies in the same directory, under a name the runtime does not load: containerd's watcher ignores
/// creations and moves from elsewhere, but sees a rename inside the directory (cni.md section 10). A running plugin
/// keeps its old file (writing into that would fail with ETXTBSY).
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.new"));
    fs::write(&temporary, content)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)
}

fn list_path(paths: &PathArgs) -> PathBuf {
    paths.cni_conf_dir.join(LIST)
}

fn list(paths: &PathArgs) -> String {
    let text = |path: &Path| path.display().to_string();
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "weft",
        "plugins": [{
            "type": PLUGIN,
            "capabilities": { "portMappings": true, "bandwidth": true },
            "subnetFile": text(&paths.subnet_file),
            "dataDir": text(&paths.state_dir.join(NETWORKS)),
            "sharedWith": [text(&flannels_reservations(paths))],
        }],
    });
    format!("{list:#}\n")
}

/// Where pods of flannel's time have their addresses: `/var/lib/cni` beside `/var/lib/weft`; `cbr0` is the name of the
/// network in flannel's manifest.
fn flannels_reservations(paths: &PathArgs) -> PathBuf {
    paths.state_dir.with_file_name("cni").join("networks/cbr0")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{install, remove, replace};
    use crate::cli::PathArgs;

    #[test]
    fn the_list_is_written_once_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = PathArgs {
            run_dir: root.path().join("run"),
            state_dir: root.path().join("state"),
            subnet_file: root.path().join("subnet.env"),
            cni_conf_dir: root.path().join("net.d"),
            cni_bin_dir: root.path().join("bin"),
        };
        install(&paths).unwrap();
        let file = root.path().join("net.d/10-weft.conflist");
        let list: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(list["plugins"][0]["type"], "weft-cni");
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        install(&paths).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
        assert_eq!(fs::read_dir(root.path().join("net.d")).unwrap().count(), 1);
        remove(&paths).unwrap();
        remove(&paths).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_newer_plugin_takes_the_place_of_the_older() {
        let root = tempfile::tempdir().unwrap();
        let plugin = root.path().join("bin/weft-cni");
        replace(&plugin, b"old", 0o755).unwrap();
        replace(&plugin, b"new", 0o755).unwrap();
        assert_eq!(fs::read(&plugin).unwrap(), b"new");
        assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
