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

use super::{install, keep_trying, list, remove, replace};
use crate::cli::PathArgs;

/// Whatever is in it.
const PLUGIN: &str = "/bin/cat";

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
    install(&paths, Path::new(PLUGIN), None).unwrap();
    let file = root.path().join("net.d/10-weft.conflist");
    let inode = fs::metadata(&file).unwrap().ino();
    install(&paths, Path::new(PLUGIN), None).unwrap();
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
    let written = |device| -> Value {
        install(&paths, Path::new(PLUGIN), device).unwrap();
        serde_json::from_slice(&fs::read(root.path().join("net.d/10-weft.conflist")).unwrap()).unwrap()
    };
    let with = written(Some("flannel.1"));
    assert_eq!((&with["cniVersion"], &with["cniVersions"]), (&json!("1.0.0"), &json!(["0.4.0", "1.0.0", "1.1.0"])));
    let plugin = &with["plugins"][0];
    assert_eq!((&plugin["type"], &plugin["overlayDevice"]), (&json!("weft-cni"), &json!("flannel.1")));
    assert_eq!(written(None)["plugins"][0].get("overlayDevice"), None, "host-gw has none");
}

#[test]
fn every_key_of_the_list_is_documented() {
    let documentation =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cni-requirements.md")).unwrap();
    let list: Value = serde_json::from_str(&list(&paths(Path::new("/x")), Some("flannel.1"))).unwrap();
    for object in [&list, &list["plugins"][0]] {
        for key in object.as_object().unwrap().keys() {
            assert!(documentation.contains(&format!("| `{key}` |")), "{key} has no row");
        }
    }
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
    install(&paths, Path::new(PLUGIN), None).unwrap();
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

#[tokio::test]
async fn without_a_plugin_there_is_no_list_until_there_is_one() {
    let root = tempfile::tempdir().unwrap();
    let paths = paths(root.path());
    let error = install(&paths, Path::new("/nowhere/weft-cni"), None).unwrap_err().to_string();
    assert!(error.contains("neither /nowhere/weft-cni nor") && error.contains("bin/weft-cni"), "{error}");
    let trying = async {
        let attempt = || install(&paths, Path::new("/nowhere/weft-cni"), None);
        keep_trying(attempt, Duration::from_millis(1)).await;
        assert!(root.path().join("net.d/10-weft.conflist").exists());
    };
    let plugin = async {
        assert!(!root.path().join("net.d").exists());
        // The path of the directory is a file's, and then is free.
        fs::write(&paths.cni_bin_dir, "").unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        fs::remove_file(&paths.cni_bin_dir).unwrap();
        replace(&paths.cni_bin_dir.join("weft-cni"), b"plugin", 0o755).unwrap();
    };
    tokio::join!(trying, plugin);
}

#[test]
fn a_failure_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let paths = paths(root.path());
    fs::write(root.path().join("net.d"), "a file").unwrap();
    let error = format!("{:#}", install(&paths, Path::new(PLUGIN), None).unwrap_err());
    assert!(error.starts_with("write ") && error.contains("net.d/10-weft.conflist: "), "{error}");
}
