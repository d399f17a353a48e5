//! Events on this Node and on Services, as kube-proxy writes them (kube-proxy.md 11.3, 11.4), and on what took Weft longer
//! than a moment. With `--source dir` they go to the log.
//!
//! They never hold anything up: what cannot be told soon, or is told too often, is dropped.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};
use weft_overlay::OverlayStatus;
use weft_proxy::model::ServiceName;

/// Events that may wait to be told.
const QUEUE: usize = 64;
/// How often the same may be told of one object.
const INTERVAL: Duration = Duration::from_secs(60);
/// Objects and reasons that are remembered for that.
const REMEMBERED: usize = 512;
/// How often, and after which pause at first, the API server is asked to take one.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// What takes longer than this is worth an event.
pub(crate) const MOMENT: Duration = Duration::from_secs(5);

/// What an event says, besides whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whether somebody should look.
    pub(crate) warning: bool,
    /// Why, in CamelCase.
    pub(crate) reason: &'static str,
    /// What was done, in CamelCase.
    pub(crate) action: &'static str,
    /// For people; may be empty.
    pub(crate) note: String,
}

enum Message {
    Event(Box<ObjectReference>, Note),
    Flush(oneshot::Sender<()>),
}

/// Writes events; clones write to the same place.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Message>,
    node: Arc<str>,
}

impl Events {
    /// Starts a task that tells them; without a client they only go to the log.
    pub(crate) fn start(client: Option<Client>, node: &str) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        // The name monitoring and people know: Weft stands where kube-proxy stood.
        let reporter = Reporter { controller: "kube-proxy".to_owned(), instance: Some(format!("weft-{node}")) };
        tokio::spawn(tell(messages, client.map(|client| Recorder::new(client, reporter))));
        Self { queue, node: node.into() }
    }

    /// About this Node.
    pub(crate) fn node(&self, note: Note) {
        let name = Some(self.node.to_string());
        // kube-proxy does not know the UID either: `kubectl describe node` finds events by the name in its place.
        let about =
            ObjectReference { kind: Some("Node".into()), uid: name.clone(), name, ..ObjectReference::default() };
        self.send(Message::Event(Box::new(about), note));
    }

    /// About a Service.
    pub(crate) fn service(&self, service: &ServiceName, note: Note) {
        let about = ObjectReference {
            kind: Some("Service".into()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.to_string()),
            uid: Some(service.to_string()),
            ..ObjectReference::default()
        };
        self.send(Message::Event(Box::new(about), note));
    }

    /// Waits until all are told, for a program that is about to end.
    pub(crate) async fn flush(&self, patience: Duration) {
        let (sender, told) = oneshot::channel();
        self.send(Message::Flush(sender));
        let _ = tokio::time::timeout(patience, told).await;
    }

    fn send(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            debug!("too many events wait; one is dropped");
        }
    }
}

async fn tell(mut messages: mpsc::Receiver<Message>, recorder: Option<Recorder>) {
    let mut limiter = Limiter::default();
    while let Some(message) = messages.recv().await {
        match message {
            Message::Flush(done) => _ = done.send(()),
            Message::Event(about, note) => {
                let Some(suppressed) = limiter.admit(&about, note.reason, Instant::now()) else { continue };
                log(&about, &note, suppressed);
                if let Some(recorder) = &recorder {
                    publish(recorder, &about, &note).await;
                }
            }
        }
    }
}

fn log(about: &ObjectReference, note: &Note, suppressed: u32) {
    let Note { warning, reason, action, note } = note;
    let kind = about.kind.as_deref().unwrap_or_default();
    let name = about.uid.as_deref().unwrap_or_default();
    if *warning {
        warn!(kind, name, reason, action, note, suppressed, "event");
    } else {
        info!(kind, name, reason, action, note, suppressed, "event");
    }
}

async fn publish(recorder: &Recorder, about: &ObjectReference, note: &Note) {
    let event = Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.to_owned(),
        note: Some(note.note.clone()),
        action: note.action.to_owned(),
        secondary: None,
    };
    // An Event lies in a namespace also if what it is about does not.
    let mut about = about.clone();
    about.namespace.get_or_insert_with(|| "default".to_owned());
    let mut pause = PAUSE;
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        match recorder.publish(&event, &about).await {
            Ok(()) => return,
            Err(error @ kube::Error::Api(_)) => {
                debug!(%error, reason = note.reason, "the API server does not want the event");
                return;
            }
            Err(error) => debug!(%error, attempt, reason = note.reason, "the event is not told yet"),
        }
    }
}

/// Lets the same pass only so often.
#[derive(Default)]
struct Limiter(HashMap<(String, &'static str), (Instant, u32)>);

impl Limiter {
    /// How many of this kind were held back before; `None`: this one is held back too.
    fn admit(&mut self, about: &ObjectReference, reason: &'static str, now: Instant) -> Option<u32> {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (last, _)| now.duration_since(*last) < INTERVAL);
        }
        let key = (format!("{:?} {:?}", about.kind, about.uid), reason);
        let full = self.0.len() >= REMEMBERED;
        match self.0.get_mut(&key) {
            Some((last, suppressed)) if now.duration_since(*last) < INTERVAL => {
                *suppressed += 1;
                None
            }
            None if full => None,
            Some((last, suppressed)) => {
                *last = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                self.0.insert(key, (now, 0));
                Some(0)
            }
        }
    }
}

/// Tells when the pod network is broken for more than a moment, and when it works again.
pub(crate) async fn follow_overlay(mut overlay: watch::Receiver<OverlayStatus>, events: Events) {
    loop {
        if overlay.wait_for(|status| status.ready).await.is_err() {
            return;
        }
        if overlay.wait_for(|status| !status.ready).await.is_err() {
            return;
        }
        let since = Instant::now();
        if let Ok(again) =
            tokio::time::timeout(MOMENT, overlay.wait_for(|status| status.ready)).await.map(|it| it.is_ok())
        {
            match again {
                true => continue,
                false => return,
            }
        }
        let note = overlay.borrow().error.clone().unwrap_or_default();
        events.node(Note { warning: true, reason: "PodNetworkNotReady", action: "RepairPodNetwork", note });
        if overlay.wait_for(|status| status.ready).await.is_err() {
            return;
        }
        let note = format!("after {:.0} s", since.elapsed().as_secs_f64());
        events.node(Note { warning: false, reason: "PodNetworkRepaired", action: "RepairPodNetwork", note });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_and_others_are_not_held_up() {
        let mut limiter = Limiter::default();
        let about = |uid: &str| ObjectReference { uid: Some(uid.to_owned()), ..ObjectReference::default() };
        let start = Instant::now();
        assert_eq!(limiter.admit(&about("a"), "Late", start), Some(0));
        assert_eq!(limiter.admit(&about("a"), "Late", start), None);
        assert_eq!(limiter.admit(&about("a"), "Other", start), Some(0));
        assert_eq!(limiter.admit(&about("b"), "Late", start), Some(0));
        assert_eq!(limiter.admit(&about("a"), "Late", start + INTERVAL), Some(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut limiter = Limiter::default();
        let about = |uid: usize| ObjectReference { uid: Some(uid.to_string()), ..ObjectReference::default() };
        let start = Instant::now();
        let told = (0..2 * REMEMBERED).filter(|uid| limiter.admit(&about(*uid), "Late", start).is_some()).count();
        assert_eq!((told, limiter.0.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(limiter.admit(&about(9999), "Late", start + INTERVAL), Some(0), "later there is room again");
    }
}
