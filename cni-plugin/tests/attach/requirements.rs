//! `docs/cni-requirements.md` names a test for each requirement; those tests exist, in those modules.

use std::{collections::BTreeMap, fs, path::Path};

/// The text of every module below a directory, by its path: `host_port::site`.
fn modules(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            modules(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = path.with_extension("").strip_prefix(root).unwrap().display().to_string().replace('/', "::");
            let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
            found.entry(module).or_default().push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_named_in_the_list_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(package.join("../docs/cni-requirements.md")).unwrap();
    let mut found = BTreeMap::new();
    for root in ["src", "tests/attach"] {
        modules(&package.join(root), &package.join(root), &mut found);
    }
    // Names of tests stand in back-quotes, with their module.
    let words: Vec<_> = list.split('`').skip(1).step_by(2).collect();
    let named: Vec<_> = words.iter().filter_map(|word| word.rsplit_once("::")).collect();
    assert!(named.len() > 50, "{named:?}");
    for (module, test) in named {
        // Tests are in a file of their own or at the end of what they test.
        let files = [Some(module), module.strip_suffix("::tests")].into_iter().flatten();
        let mut texts = files.filter_map(|file| found.get(file));
        assert!(texts.any(|text| text.contains(&format!("fn {test}("))), "there is no {module}::{test}");
    }
    for path in words.iter().filter(|word| word.ends_with(".rs")) {
        assert!(package.join("..").join(path).exists(), "there is no {path}");
    }
}
