//! One kind at the API server, turned into events of the source.

use std::fmt::Debug;

use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::{debug, info, warn};
use weft_kube_watch::{ListGuard, News, Selection, Verdict, Watch, WatchError};
use weft_proxy::{
    model::{ObjectKind, api::Object},
    plan::Change,
};

use crate::source::SourceEvent;

/// Takes what the source says; false when nobody wants to know any more.
type Deliver<'a> = &'a (dyn Fn(SourceEvent) -> bool + Sync);

/// Follows one kind for as long as `deliver` takes what comes.
pub(super) struct Follower<'a> {
    kind: ObjectKind,
    guard: Option<ListGuard>,
    deliver: Deliver<'a>,
    /// What the source said last that keeps this kind from being up to date.
    trouble: Option<String>,
}

/// What is to be done after a list.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    ListAgain,
}

impl<'a> Follower<'a> {
    pub(super) fn new(kind: ObjectKind, guard: Option<ListGuard>, deliver: Deliver<'a>) -> Self {
        Self { kind, guard, deliver, trouble: None }
    }

    pub(super) async fn follow<K>(mut self, api: Api<K>, selection: Selection)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Into<Object> + Send + 'static,
    {
        let mut watch = Watch::<K, Object>::new(api, selection, K::into);
        let mut failing = false;
        loop {
            let news = watch.next().await;
            self.note_outage(&mut failing, news.as_ref().err());
            let Ok(news) = news else { continue };
            match self.take(news) {
                Some(Next::Go) => {}
                Some(Next::ListAgain) => watch.list_again(),
                None => return,
            }
        }
    }

    /// Says it once when the API server goes away, and once when it is back.
    fn note_outage(&self, failing: &mut bool, error: Option<&WatchError>) {
        let kind = self.kind;
        match error {
            Some(error) if !*failing => {
                warn!(%kind, %error, "watching the API server; the data plane stays as it is");
                self.send(SourceEvent::Trouble(
                    kind,
                    Some(format!("{kind}: the API server cannot be watched: {error}")),
                ));
            }
            None if *failing => {
                info!(%kind, "watching the API server again");
                self.send(SourceEvent::Trouble(kind, self.trouble.clone()));
            }
            _ => {}
        }
        *failing = error.is_some();
    }

    /// `None` when nobody wants to know any more.
    fn take(&mut self, news: News<Object>) -> Option<Next> {
        match news {
            News::List(objects) => self.take_list(objects),
            News::Applied(object) => {
                let reference = object.reference();
                self.change(Change::Apply(object))?;
                let whole = self.guard.as_mut().is_some_and(|guard| guard.applied(&reference));
                self.settle(whole)
            }
            News::Deleted(object) => {
                let reference = object.reference();
                let whole = self.guard.as_mut().is_some_and(|guard| guard.deleted(&reference));
                self.change(Change::Delete(reference))?;
                self.settle(whole)
            }
        }
    }

    fn take_list(&mut self, objects: Vec<Object>) -> Option<Next> {
        let kind = self.kind;
        debug!(%kind, count = objects.len(), "listed");
        let present = objects.iter().map(Object::reference);
        let verdict = self.guard.as_mut().map_or(Verdict::Believed, |guard| guard.list(present));
        if let Some(trouble) = verdict.explain(&kind.to_string(), objects.len()) {
            self.trouble(trouble)?;
        }
        match verdict {
            Verdict::Believed => {
                self.send(SourceEvent::Replace(kind, objects))?;
                self.settle(true)
            }
            Verdict::Held { .. } => {
                for object in objects {
                    self.change(Change::Apply(object))?;
                }
                Some(Next::Go)
            }
            Verdict::Refused { .. } => Some(Next::ListAgain),
        }
    }

    /// Takes back what was said, if all is well again.
    fn settle(&mut self, whole: bool) -> Option<Next> {
        if whole && self.trouble.take().is_some() {
            info!(kind = %self.kind, "the API server has all objects again");
            self.send(SourceEvent::Trouble(self.kind, None))?;
        }
        Some(Next::Go)
    }

    /// Says what is wrong, once.
    fn trouble(&mut self, trouble: String) -> Option<()> {
        if self.trouble.as_ref() != Some(&trouble) {
            warn!("{trouble}");
            self.trouble = Some(trouble.clone());
            self.send(SourceEvent::Trouble(self.kind, Some(trouble)))?;
        }
        Some(())
    }

    fn change(&self, change: Change) -> Option<()> {
        self.send(SourceEvent::Change(change))
    }

    fn send(&self, event: SourceEvent) -> Option<()> {
        (self.deliver)(event).then_some(())
    }
}

#[cfg(test)]
mod tests;
