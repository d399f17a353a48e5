use std::{collections::BTreeSet, fs, path::Path};

use weft_proxy::{model::ObjectKind, plan::Change};

use super::{Directory, SourceEvent};

fn service(name: &str, port: u16) -> String {
    format!("kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.10, ports: [{{port: {port}}}]}}\n")
}

fn write(root: &Path, file: &str, text: &str) -> BTreeSet<std::path::PathBuf> {
    fs::write(root.join(file), text).unwrap();
    BTreeSet::from([root.join(file)])
}

/// Changes and reports as short text.
fn summary(events: &[SourceEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            SourceEvent::Replace(kind, objects) => format!("{kind} x{}", objects.len()),
            SourceEvent::Change(Change::Apply(object)) => format!("apply {}", object.reference()),
            SourceEvent::Change(Change::Delete(reference)) => format!("delete {reference}"),
            SourceEvent::Trouble(..) => "trouble".to_owned(),
            SourceEvent::Unreadable(rejected) => {
                format!("unreadable {:?}", rejected.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>())
            }
        })
        .collect()
}

#[test]
fn the_first_read_lists_every_kind() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "web.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    write(root.path(), "notes.txt", "not a manifest");
    let mut directory = Directory::new(root.path());
    let events = directory.read_all().unwrap();
    assert_eq!(summary(&events), ["Service x2", "EndpointSlice x0", "Node x0", "unreadable []"]);
    assert!(matches!(&events[0], SourceEvent::Replace(ObjectKind::Service, _)));
}

#[test]
fn only_what_differs_is_sent() {
    let root = tempfile::tempdir().unwrap();
    let changed = write(root.path(), "web.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    let mut directory = Directory::new(root.path());
    directory.read_all().unwrap();
    assert!(directory.refresh(&changed).unwrap().is_empty());
    write(root.path(), "web.yaml", &format!("{}---\n{}", service("a", 80), service("b", 81)));
    assert_eq!(summary(&directory.refresh(&changed).unwrap()), ["apply Service default/b"]);
    fs::remove_file(root.path().join("web.yaml")).unwrap();
    let gone = summary(&directory.refresh(&changed).unwrap());
    assert_eq!(gone, ["delete Service default/a", "delete Service default/b"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_objects_and_is_reported_with_its_line() {
    let root = tempfile::tempdir().unwrap();
    let changed = write(root.path(), "web.yaml", &service("a", 80));
    let mut directory = Directory::new(root.path());
    directory.read_all().unwrap();
    write(root.path(), "web.yaml", "kind: Service\nmetadata: {name: a}\nspec: {ports: [}\n");
    let events = summary(&directory.refresh(&changed).unwrap());
    assert_eq!(events.len(), 1);
    assert!(events[0].starts_with("unreadable [\"web.yaml:3: "), "{events:?}");
    write(root.path(), "web.yaml", &service("a", 80));
    assert_eq!(summary(&directory.refresh(&changed).unwrap()), ["unreadable []"]);
}

#[test]
fn an_emptied_file_is_no_deletion() {
    let root = tempfile::tempdir().unwrap();
    let changed = write(root.path(), "web.yaml", &service("a", 80));
    let mut directory = Directory::new(root.path());
    directory.read_all().unwrap();
    write(root.path(), "web.yaml", "");
    let events = summary(&directory.refresh(&changed).unwrap());
    assert_eq!(events, ["unreadable [\"web.yaml:1: no object in it; remove the file to remove its objects\"]"]);
}

#[test]
fn of_two_definitions_the_first_file_wins_and_the_other_steps_in() {
    let root = tempfile::tempdir().unwrap();
    let first = write(root.path(), "a.yaml", &service("web", 80));
    write(root.path(), "b.yaml", &service("web", 81));
    let mut directory = Directory::new(root.path());
    let events = summary(&directory.read_all().unwrap());
    assert_eq!(events[0], "Service x1");
    assert_eq!(events[3], "unreadable [\"b.yaml:1: defined in a.yaml too, which is used\"]");
    fs::remove_file(root.path().join("a.yaml")).unwrap();
    assert_eq!(summary(&directory.refresh(&first).unwrap()), ["apply Service default/web", "unreadable []"]);
}

#[test]
fn a_full_refresh_finds_what_was_not_reported() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a.yaml", &service("a", 80));
    let mut directory = Directory::new(root.path());
    directory.read_all().unwrap();
    fs::remove_file(root.path().join("a.yaml")).unwrap();
    write(root.path(), "b.yaml", &service("b", 80));
    let events = summary(&directory.refresh(&BTreeSet::new()).unwrap());
    assert_eq!(events, ["delete Service default/a", "apply Service default/b"]);
}
