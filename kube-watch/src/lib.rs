//! Follows one kind of object at a Kubernetes API server, for as long as it takes.
//!
//! Bookmarks, resuming and listing again are the `kube` crate's work. What is added here: streaming lists where the server
//! has them and pages where not, a way out where `kube` 5.0 asks for a forgotten version for ever, back-off that is kind to
//! a server with thousands of agents, and a guard against lists that have lost most objects ([`ListGuard`]).

mod backoff;
mod guard;
mod metadata;
mod watch;

pub use guard::{ListGuard, Verdict};
pub use metadata::lean_metadata;
pub use watch::{News, Watch, WatchError};
