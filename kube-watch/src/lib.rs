//! Follows one kind of object at a Kubernetes API server, for as long as it takes.
//!
//! Streaming lists where the server has them and pages where not; bookmarks; back-off that is kind to a server with thousands
//! of agents, also where watches and lists do not fail but end as soon as they begin, which the watcher of `kube` 5.0 answers
//! by asking again at once; a way out where a version is not known any more, or not yet; and a guard against lists that have
//! lost most objects ([`ListGuard`]).

mod backoff;
mod guard;
mod metadata;
mod watch;

pub use guard::{ListGuard, Verdict};
pub use metadata::lean_metadata;
pub use watch::{News, Selection, Watch, WatchError};
