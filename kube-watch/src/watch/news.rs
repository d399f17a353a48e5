//! What is asked for and what comes of it.

use kube::core::Status;

/// Which objects of a kind, by selectors as the API writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// By labels; `None` for all.
    pub labels: Option<String>,
    /// By fields; `None` for all.
    pub fields: Option<String>,
    /// Where there are no streaming lists: take a list whole from the server's cache, which spares etcd and needs memory for
    /// its text, not in pages.
    pub whole: bool,
}

/// Why the API server cannot be followed at the moment.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no answer, or the server refuses.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// An event is not of the API's shape, or most of a list. The others are told of.
    #[error("what the API server sends cannot be read")]
    Unreadable,
    /// The server ended a watch and said why; mostly that the version is too old to go on from.
    #[error("the API server ended the watch: {} ({})", .0.message, .0.code)]
    Ended(Box<Status>),
    /// A list was not complete when the connection ended.
    #[error("the API server's list broke off")]
    ListBrokeOff,
    /// As a server does that is about to stop, or a proxy without one.
    #[error("the API server's watch ended as soon as it had begun")]
    EndedAtOnce,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<T> {
    /// All there are. A list that broke off is never delivered.
    List(Vec<T>),
    /// One is new, or changed.
    Applied(T),
    /// One is gone; as it was last.
    Deleted(T),
}
