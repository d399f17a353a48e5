//! Where the container runtime finds plugins, and which configuration it takes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Context,
    finding::{Area, Finding},
};

const AREA: Area = Area::Cni;

/// Ours; the runtime takes the first in the order of names.
const LIST: &str = "10-weft.conflist";

/// What the runtime takes for configuration (cni.md section 10).
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// All of them; none where pods are somebody else's.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    if !context.wants("cni") {
        return Vec::new();
    }
    let paths = &context.args.agent.paths;
    let mut findings: Vec<Finding> =
        [&paths.cni_conf_dir, &paths.cni_bin_dir].into_iter().map(|directory| writable(directory)).collect();
    let names = fs::read_dir(&paths.cni_conf_dir).into_iter().flatten().flatten();
    let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    findings.push(order(&names, &paths.cni_conf_dir, context.runs("cni")));
    if context.runs("cni") {
        findings.push(plugin(paths.cni_bin_dir.join("weft-cni")));
    }
    findings
}

/// Tries it in the directory, or where it would be made.
fn writable(directory: &Path) -> Finding {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    // A file without a name, which nobody sees and which goes when it is closed (open(2), O_TMPFILE), cannot be had on every
    // file system. Runtimes ignore names that start with a dot.
    let probe = there.join(format!(".weft-doctor-{}", std::process::id()));
    let tried = fs::write(&probe, "").and_then(|()| fs::remove_file(&probe));
    match tried {
        Ok(()) if there == directory => {
            Finding::ok(AREA, "directory", format!("{} can be written", directory.display()))
        }
        Ok(()) => Finding::note(AREA, "directory", format!("{} is not there yet; it can be made", directory.display())),
        Err(error) => unwritable(directory, &error),
    }
}

fn unwritable(directory: &Path, error: &io::Error) -> Finding {
    let seen = format!("{} cannot be written: {error}", directory.display());
    Finding::problem(
        AREA,
        "directory",
        seen,
        "mount it read-write, or name the runtime's directory by --cni-conf-dir, --cni-bin-dir",
    )
}

/// `running`: the agent has put its list there.
fn order(names: &[String], directory: &Path, running: bool) -> Finding {
    let mut names: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !name.starts_with('.') && is_configuration(name)).collect();
    names.sort_unstable();
    let others: Vec<&str> = names.iter().copied().filter(|name| *name < LIST).collect();
    let advice = |first: &str| {
        format!(
            "remove {}, if its network is to go; `weft cleanup --legacy` does for flannel's",
            directory.join(first).display()
        )
    };
    match (others.first(), names.contains(&LIST)) {
        (Some(first), _) => {
            let seen = format!("the runtime takes {}, not {LIST}: new pods do not come to Weft", others.join(", "));
            match running {
                true => Finding::problem(AREA, "configuration-order", seen, advice(first)),
                false => Finding::warning(AREA, "configuration-order", seen, advice(first)),
            }
        }
        (None, false) if running => Finding::problem(
            AREA,
            "configuration-order",
            format!("{} has no {LIST}: the runtime cannot start pods", directory.display()),
            "look at `weft status`: the agent writes it when the pod network is up; restart the agent if it is",
        ),
        (None, false) => Finding::ok(AREA, "configuration-order", format!("nothing comes before {LIST}")),
        (None, true) => Finding::ok(AREA, "configuration-order", format!("the runtime takes {LIST}")),
    }
}

fn is_configuration(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

fn plugin(path: PathBuf) -> Finding {
    match path.is_file() {
        true => Finding::ok(AREA, "plugin", format!("{} is installed", path.display())),
        false => {
            let seen = format!("{} is not there: the runtime cannot start pods", path.display());
            Finding::problem(AREA, "plugin", seen, "put weft-cni beside weft and restart the agent, or copy it there")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn the_first_name_wins() {
        for (names, running, verdict) in [
            (&["10-weft.conflist"][..], true, Verdict::Ok),
            (&["10-weft.conflist", "87-podman.conflist"], true, Verdict::Ok),
            (&["05-cilium.conflist", "10-weft.conflist"], true, Verdict::Problem),
            (&["10-flannel.conflist"], false, Verdict::Warning),
            (&["05-old.conflist.bak", ".05-x.conf", "10-weft.conflist"], true, Verdict::Ok),
            (&[], true, Verdict::Problem),
            (&[], false, Verdict::Ok),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(order(&names, Path::new("/etc/cni/net.d"), running).verdict, verdict, "{names:?}");
        }
    }

    #[test]
    fn directories_are_tried() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(writable(root.path()).verdict, Verdict::Ok);
        assert_eq!(writable(&root.path().join("a/b")).verdict, Verdict::Note);
        assert_eq!(writable(Path::new("/proc/net.d")).verdict, Verdict::Problem);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
