//! Programs that would put back what is removed.

use std::{fs, path::Path};

const PROGRAMS: [&str; 2] = ["flanneld", "kube-proxy"];

/// Those that run in this network namespace, as reasons to leave everything.
pub(super) fn programs() -> Vec<String> {
    let here = namespace(Path::new("/proc/thread-self"));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        // One whose namespace cannot be read may be of this one.
        let elsewhere = namespace(&process).is_some_and(|there| Some(there) != here);
        if PROGRAMS.contains(&name.trim()) && !elsewhere {
            found.push(format!("{} runs (process {})", name.trim(), entry.file_name().to_string_lossy()));
        }
    }
    found.sort();
    found
}

/// What its link says, such as `net:[4026531840]`.
fn namespace(process: &Path) -> Option<std::path::PathBuf> {
    fs::read_link(process.join("ns/net")).ok()
}
