//! What must happen to a client's requests.

use std::fmt;

use crate::objects::Server;

/// Which client address the server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Does not matter here.
    Any,
    /// The client's own.
    Client,
    /// One of n1.
    N1,
    /// One of n2.
    N2,
}

/// How the requests are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// In turn, strictly: 1 2 3 1 2 3.
    Turns,
    /// All to one of them.
    One,
    /// All to the one of the row before.
    Same,
    /// All to another one than in the row before.
    Other,
}

/// What must happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Servers answer, by the names they answer with.
    Answer { by: Vec<String>, order: Order, source: Source },
    /// Refused at once.
    Refused,
    /// The packet is refused as it is sent: EPERM.
    RefusedToSend,
    /// No answer at all.
    Silence,
    /// As if there were no Service: a server that is at that address really, the default gateway or n1, answers.
    Untouched,
}

/// These servers answer in strict turn.
pub(crate) fn by<const N: usize>(servers: [Server; N]) -> Outcome {
    let by = servers.iter().map(|server| server.name().to_owned()).collect();
    Outcome::Answer { by, order: Order::Turns, source: Source::Any }
}

impl Outcome {
    /// The servers' second port answers, 8081.
    pub(crate) fn at_8081(self) -> Self {
        self.map(|by, _, _| by.iter_mut().for_each(|name| name.push_str(":8081")))
    }

    /// One more server, at its second port.
    pub(crate) fn and_at_8081(self, server: Server) -> Self {
        self.map(|by, _, _| by.push(format!("{}:8081", server.name())))
    }

    pub(crate) fn order(self, wanted: Order) -> Self {
        self.map(|_, order, _| *order = wanted)
    }

    /// The servers see the client's address.
    pub(crate) fn sees_client(self) -> Self {
        self.map(|_, _, source| *source = Source::Client)
    }

    /// The servers see an address of n1.
    pub(crate) fn sees_n1(self) -> Self {
        self.map(|_, _, source| *source = Source::N1)
    }

    /// The servers see an address of n2.
    pub(crate) fn sees_n2(self) -> Self {
        self.map(|_, _, source| *source = Source::N2)
    }

    fn map(mut self, change: impl FnOnce(&mut Vec<String>, &mut Order, &mut Source)) -> Self {
        if let Self::Answer { by, order, source } = &mut self {
            change(by, order, source);
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, order, source) = match self {
            Self::Answer { by, order, source } => (by.join(", "), order, source),
            Self::Refused => return f.write_str("refused"),
            Self::RefusedToSend => return f.write_str("refused: EPERM"),
            Self::Silence => return f.write_str("silence"),
            Self::Untouched => return f.write_str("untouched"),
        };
        match order {
            Order::Turns => write!(f, "{by}")?,
            Order::One => write!(f, "one of {by}")?,
            Order::Same => f.write_str("the same one again")?,
            Order::Other => f.write_str("another one")?,
        }
        f.write_str(match source {
            Source::Any => "",
            Source::Client => "; sees the client",
            Source::N1 => "; sees n1",
            Source::N2 => "; sees n2",
        })
    }
}
