//! `docs/cni-requirements.md` names a test for each requirement; those tests exist.

use std::{fs, path::Path};

fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_named_in_the_list_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(package.join("../docs/cni-requirements.md")).unwrap();
    let mut text = String::new();
    sources(&package.join("src"), &mut text);
    sources(&package.join("tests"), &mut text);
    // Names of tests stand in back-quotes, with their module.
    let named: Vec<_> = list.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> =
        named.iter().filter(|name| !text.contains(&format!("fn {}(", name.rsplit("::").next().unwrap()))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
