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

/// Installs the plugin, where it lies beside the running agent, and then the list. `device` is the overlay's, if its backend
/// has one: without it STATUS says that running pods are impaired.
///
/// # Errors
/// A directory cannot be written.
pub(crate) fn install(paths: &PathArgs, device: Option<&str>) -> io::Result<()> {
    let beside = std::env::current_exe()?.with_file_name(PLUGIN);
    if beside.is_file() {
        let installed = paths.cni_bin_dir.join(PLUGIN);
        replace(&installed, &fs::read(&beside)?, 0o755)?;
    }
    replace(&list_path(paths), list(paths, device).as_bytes(), 0o644)
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

/// Runtimes that know `cniVersions` take the latest they speak, and with 1.1.0 ask for STATUS and GC; the others read
/// `cniVersion`, which containerd 1.6 understands.
fn list(paths: &PathArgs, device: Option<&str>) -> String {
    let text = |path: &Path| path.display().to_string();
    let mut plugin = json!({
        "type": PLUGIN,
        "capabilities": { "portMappings": true, "bandwidth": true },
        "subnetFile": text(&paths.subnet_file),
        "dataDir": text(&paths.state_dir.join(NETWORKS)),
        "sharedWith": [text(&flannels_reservations(paths))],
    });
    if let Some(device) = device {
        plugin["overlayDevice"] = device.into();
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "weft",
        "plugins": [plugin],
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
    use std::{
        fs,
        io::Read,
        os::unix::fs::{MetadataExt, PermissionsExt},
        path::Path,
        process::{Command, Stdio},
        sync::mpsc,
        time::Duration,
    };

    use notify::{
        EventKind, RecursiveMode, Watcher,
        event::{ModifyKind, RenameMode},
    };
    use serde_json::{Value, json};

    use super::{install, remove, replace};
    use crate::cli::PathArgs;

    fn paths(root: &Path) -> PathArgs {
        PathArgs {
            run_dir: root.join("run"),
            state_dir: root.join("state"),
            subnet_file: root.join("subnet.env"),
            cni_conf_dir: root.join("net.d"),
            cni_bin_dir: root.join("bin"),
        }
    }

    #[test]
    fn the_list_is_written_once_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        install(&paths, None).unwrap();
        let file = root.path().join("net.d/10-weft.conflist");
        let inode = fs::metadata(&file).unwrap().ino();
        install(&paths, None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "the runtime would reload");
        assert_eq!(fs::read_dir(root.path().join("net.d")).unwrap().count(), 1);
        remove(&paths).unwrap();
        remove(&paths).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn r2_5_s2_the_list_names_its_versions_and_the_overlays_device() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let list = |device| -> Value {
            install(&paths, device).unwrap();
            serde_json::from_slice(&fs::read(root.path().join("net.d/10-weft.conflist")).unwrap()).unwrap()
        };
        let with = list(Some("flannel.1"));
        assert_eq!((&with["cniVersion"], &with["cniVersions"]), (&json!("1.0.0"), &json!(["0.4.0", "1.0.0", "1.1.0"])));
        let plugin = &with["plugins"][0];
        assert_eq!((&plugin["type"], &plugin["overlayDevice"]), (&json!("weft-cni"), &json!("flannel.1")));
        assert_eq!(list(None)["plugins"][0].get("overlayDevice"), None, "host-gw has none");
    }

    /// containerd's watcher ignores creations, and sees renames inside the directory (section 10).
    #[test]
    fn section_10_the_list_is_renamed_into_place_inside_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        fs::create_dir(&paths.cni_conf_dir).unwrap();
        let (sender, events) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(sender).unwrap();
        watcher.watch(&paths.cni_conf_dir, RecursiveMode::NonRecursive).unwrap();
        install(&paths, None).unwrap();
        loop {
            let event = events.recv_timeout(Duration::from_secs(20)).expect("a rename").unwrap();
            let changed = event.paths.first().and_then(|path| path.file_name()).unwrap().to_str().unwrap();
            match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => return assert_eq!(changed, "10-weft.conflist"),
                // What a runtime would load is never seen half-written.
                _ => assert_eq!(changed, ".10-weft.conflist.new", "{event:?}"),
            }
        }
    }

    #[test]
    fn a_newer_plugin_takes_the_place_of_one_that_runs() {
        let root = tempfile::tempdir().unwrap();
        let plugin = root.path().join("bin/weft-cni");
        replace(&plugin, &fs::read("/bin/cat").unwrap(), 0o755).unwrap();
        let mut old = Command::new(&plugin).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        replace(&plugin, b"new", 0o755).unwrap();
        assert_eq!(fs::read(&plugin).unwrap(), b"new");
        assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
        drop(old.stdin.take());
        let mut said = String::new();
        old.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(old.wait().unwrap().success(), "it goes on with its old file");
    }
}
