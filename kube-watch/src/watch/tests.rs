//! The API server's answers, one after the other, and what becomes of them. Time passes by itself.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::{Request, Response, body::Frame};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;

use super::*;

/// One answer of the server: status, text, and for how long the connection stays open after it.
type Answer = (u16, String, Duration);

/// A server that gives these answers, and the last of them again and again.
struct Server {
    answers: Mutex<VecDeque<Answer>>,
    /// Query strings of all requests.
    asked: Mutex<Vec<String>>,
}

impl Server {
    fn new(answers: Vec<Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into()), asked: Mutex::default() })
    }

    fn watch(self: &Arc<Self>) -> Watch<ConfigMap, String> {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answer = server.answer(request.uri().query().unwrap_or_default());
            async move { Ok::<_, Infallible>(answer) }
        });
        let api = Api::all(Client::new(service, "default"));
        let selection = Selection { labels: Some("!x".into()), ..Selection::default() };
        Watch::new(api, selection, |object| object.metadata.name.unwrap_or_default())
    }

    fn answer(
        &self,
        query: &str,
    ) -> Response<impl hyper::body::Body<Data = hyper::body::Bytes, Error = Infallible> + use<>> {
        self.asked.lock().unwrap().push(query.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let (code, text, open) =
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap();
        let text = stream::iter([Ok(Frame::data(text.into()))]);
        let end = stream::once(async move { tokio::time::sleep(open).await }).filter_map(|()| async { None });
        let mut response = Response::new(StreamBody::new(Box::pin(text.chain(end))));
        *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
        response
    }

    /// Of all requests the parameter `key`, `-` where it is not given.
    fn asked(&self, key: &str) -> Vec<String> {
        let value = |query: &String| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(name, _)| *name == key).map_or("-".to_owned(), |(_, value)| value.to_owned())
        };
        self.asked.lock().unwrap().iter().map(value).collect()
    }
}

fn object(name: &str, version: u32) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#)
}

fn event(kind: &str, name: &str, version: u32) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", object(name, version))
}

fn bookmark(version: u32, annotations: &str) -> String {
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\
         \"metadata\":{{\"resourceVersion\":\"{version}\",\"annotations\":{{{annotations}}}}}}}}}\n"
    )
}

fn end_of_list(version: u32) -> String {
    bookmark(version, r#""k8s.io/initial-events-end":"true""#)
}

fn status(code: u16, message: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message}","reason":"R","code":{code}}}"#
    )
}

/// Closed at once.
fn short(text: &str) -> Answer {
    (200, text.to_owned(), Duration::ZERO)
}

/// Closed by the server when its time is over.
fn long(text: &str) -> Answer {
    (200, text.to_owned(), Duration::from_secs(290))
}

fn listed(names: &[&str]) -> News<String> {
    News::List(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_goes_on_as_a_watch_and_is_resumed_where_it_ended() {
    let list = event("ADDED", "a", 3) + &event("ADDED", "b", 5) + &end_of_list(7) + &event("DELETED", "a", 9);
    let server = Server::new(vec![short(&list), long(&bookmark(11, "")), long(&event("MODIFIED", "b", 12))]);
    let mut watch = server.watch();
    assert_eq!(watch.next().await.unwrap(), listed(&["a", "b"]));
    assert_eq!(watch.next().await.unwrap(), News::Deleted("a".into()));
    assert_eq!(watch.next().await.unwrap(), News::Applied("b".into()));
    assert_eq!(server.asked("resourceVersion"), ["", "9", "11"]);
    assert_eq!(server.asked("sendInitialEvents"), ["true", "-", "-"]);
    assert_eq!(server.asked("labelSelector"), ["%21x"; 3]);
}

#[tokio::test(start_paused = true)]
async fn without_streaming_lists_it_pages() {
    let page = |metadata: &str, name| short(&format!(r#"{{"metadata":{metadata},"items":[{}]}}"#, object(name, 3)));
    let refused = (422, status(422, "sendInitialEvents is forbidden"), Duration::ZERO);
    let pages = [page(r#"{"continue":"more","resourceVersion":"7"}"#, "a"), page(r#"{"resourceVersion":"7"}"#, "b")];
    let server = Server::new([vec![refused], pages.to_vec(), vec![long(&event("ADDED", "c", 8))]].concat());
    let mut watch = server.watch();
    assert_eq!(watch.next().await.unwrap(), listed(&["a", "b"]));
    assert_eq!(watch.next().await.unwrap(), News::Applied("c".into()));
    assert_eq!(server.asked("continue"), ["-", "-", "more", "-"]);
    assert_eq!(server.asked("limit"), ["-", "500", "500", "-"]);
    assert_eq!(server.asked("resourceVersion"), ["", "-", "-", "7"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_is_not_delivered_and_no_storm_follows() {
    let server = Server::new(vec![short(&event("ADDED", "a", 3))]);
    let mut watch = server.watch();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        assert!(matches!(watch.next().await, Err(WatchError::ListBrokeOff)));
    }
    let asked = server.asked("watch").len();
    assert!(asked < 30, "{asked} lists in a minute");
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_no_storm_either() {
    let server = Server::new(vec![short(&end_of_list(7)), short("")]);
    let mut watch = server.watch();
    assert_eq!(watch.next().await.unwrap(), listed(&[]));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        assert!(matches!(watch.next().await, Err(WatchError::EndedAtOnce)));
    }
    let versions = server.asked("resourceVersion");
    assert!(versions.len() < 30, "{} watches in a minute", versions.len());
    assert!(versions[1..].iter().all(|version| version == "7"), "nothing is listed again");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_known_is_forgotten() {
    let gone = || format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410, "too old resource version"));
    let refusals = [
        short(&gone()),
        (410, status(410, "too old resource version"), Duration::ZERO),
        (504, status(504, "Timeout: Too large resource version: 7, current: 3"), Duration::ZERO),
    ];
    for refusal in refusals {
        let server = Server::new(vec![short(&end_of_list(7)), refusal, long(&end_of_list(4))]);
        let mut watch = server.watch();
        assert_eq!(watch.next().await.unwrap(), listed(&[]));
        assert!(watch.next().await.is_err());
        assert_eq!(watch.next().await.unwrap(), listed(&[]));
        assert_eq!(server.asked("resourceVersion"), ["", "7", ""]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_new_list_does_not_wait_as_long_as_the_outage_did() {
    let away = || (503, status(503, "away"), Duration::ZERO);
    let gone = (410, status(410, "too old resource version"), Duration::ZERO);
    let outage = (0..8).map(|_| away());
    let answers = [vec![short(&end_of_list(7))], outage.collect(), vec![gone, long(&end_of_list(4))]].concat();
    let server = Server::new(answers);
    let mut watch = server.watch();
    assert_eq!(watch.next().await.unwrap(), listed(&[]));
    for _ in 0..9 {
        assert!(watch.next().await.is_err());
    }
    let back = Instant::now();
    assert_eq!(watch.next().await.unwrap(), listed(&[]));
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_asked_for_again_is_no_older_than_what_is_known() {
    let server = Server::new(vec![long(&end_of_list(7)), long(&end_of_list(8))]);
    let mut watch = server.watch();
    watch.next().await.unwrap();
    watch.list_again();
    assert_eq!(watch.next().await.unwrap(), listed(&[]));
    assert_eq!(server.asked("resourceVersion"), ["", "7"]);
    assert_eq!(server.asked("resourceVersionMatch"), ["NotOlderThan", "NotOlderThan"]);

    // By an agent that does not believe any of them, not ever faster.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        watch.list_again();
        watch.next().await.unwrap();
    }
    let asked = server.asked("watch").len();
    assert!(asked < 30, "{asked} lists in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_for_long_is_asked_for_a_list() {
    let silent = || long("");
    let server = Server::new(vec![long(&end_of_list(7)), silent(), silent(), long(&end_of_list(3))]);
    let mut watch = server.watch();
    watch.next().await.unwrap();
    let begin = Instant::now();
    assert_eq!(watch.next().await.unwrap(), listed(&[]));
    assert!(begin.elapsed() >= SILENCE);
    assert_eq!(server.asked("resourceVersion"), ["", "7", "7", ""]);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_costs_only_itself() {
    let wrong = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":[]}}}\n";
    let list = event("ADDED", "a", 3) + wrong + &end_of_list(7) + wrong + &event("ADDED", "b", 9);
    let mut watch = Server::new(vec![long(&list)]).watch();
    assert_eq!(watch.next().await.unwrap(), listed(&["a"]));
    assert!(matches!(watch.next().await, Err(WatchError::Unreadable)));
    assert_eq!(watch.next().await.unwrap(), News::Applied("b".into()));

    // But nobody is deleted because everything is strange.
    let mut watch = Server::new(vec![long(&(wrong.to_owned() + &end_of_list(7)))]).watch();
    assert!(matches!(watch.next().await, Err(WatchError::Unreadable)));
}
