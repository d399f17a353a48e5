//! What the source delivers for what the API server says.

use std::sync::Mutex;

use weft_proxy::model::api::{Metadata, Service};

use super::*;

fn service(name: &str) -> Object {
    Service { metadata: Metadata { name: name.to_owned(), ..Metadata::default() }, ..Service::default() }.into()
}

fn list(names: &[&str]) -> News<Object> {
    News::List(names.iter().map(|name| service(name)).collect())
}

/// What is delivered, in short, for a run of news; and whether the last of them asks for another list.
fn delivered(guard: ListGuard, news: Vec<News<Object>>) -> (Vec<String>, Option<Next>) {
    let events = Mutex::new(Vec::new());
    let deliver = |event: SourceEvent| {
        events.lock().unwrap().push(match event {
            SourceEvent::Replace(_, objects) => format!("all {}", objects.len()),
            SourceEvent::Change(Change::Apply(object)) => format!("apply {}", object.reference().name),
            SourceEvent::Change(Change::Delete(reference)) => format!("delete {}", reference.name),
            SourceEvent::Trouble(_, trouble) => trouble.map_or_else(|| "well".to_owned(), |_| "trouble".to_owned()),
            SourceEvent::Unreadable(_) => "unreadable".to_owned(),
        });
        true
    };
    let mut follower = Follower::new(ObjectKind::Service, Some(guard), &deliver);
    let mut next = None;
    for news in news {
        next = follower.take(news);
    }
    (events.into_inner().unwrap(), next)
}

#[test]
fn a_list_that_lost_most_deletes_nothing_until_all_are_back() {
    let news = vec![
        list(&["a", "b", "c", "d"]),
        list(&["a"]),
        list(&["a"]),
        News::Applied(service("b")),
        News::Applied(service("c")),
        News::Deleted(service("d")),
        list(&["a", "b"]),
    ];
    let (events, next) = delivered(ListGuard::new(false, None), news);
    let expected = ["all 4", "trouble", "apply a", "apply a", "apply b", "apply c", "delete d", "well", "all 2"];
    assert_eq!(events, expected);
    assert_eq!(next, Some(Next::Go));
}

#[test]
fn a_first_list_that_lost_most_is_not_delivered() -> std::io::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("known-services");
    std::fs::write(&file, "10\n")?;
    let (events, next) = delivered(ListGuard::new(false, Some(file.clone())), vec![list(&["a"]), list(&["a"])]);
    assert_eq!((events, next), (vec!["trouble".to_owned()], Some(Next::ListAgain)));
    let (events, _) = delivered(ListGuard::new(true, Some(file)), vec![list(&["a"])]);
    assert_eq!(events, ["all 1"]);
    Ok(())
}
