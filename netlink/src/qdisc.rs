//! Token buckets (tbf), the queueing discipline that limits what an interface sends.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE, Nla};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};
use nix::libc;

use crate::{
    IfIndex, Netlink,
    attributes::attributes,
    error::{During, Failure, Result},
};

const KIND: &str = "tbf";

/// TCA_TBF_PARMS, TCA_TBF_RATE64 and TCA_TBF_BURST (linux/pkt_sched.h).
const PARAMETERS: u16 = 1;
const RATE: u16 = 4;
const BURST: u16 = 6;

/// `struct tc_tbf_qopt`: two `struct tc_ratespec` of 12 bytes each, limit, buffer, mtu.
const PARAMETERS_BYTES: usize = 36;
const RATE_AT: usize = 8;
const LIMIT_AT: usize = 24;

/// TC_LINKLAYER_ETHERNET, in the second byte of a `tc_ratespec`.
const ETHERNET: u8 = 1;

/// A limit on what an interface sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second, at least 1.
    pub rate: u64,
    /// Bytes that may go at once after a silence. No packet may be larger: a packet of several segments is cut up.
    pub burst: u32,
    /// Bytes that may wait; what comes on top is dropped.
    pub limit: u32,
}

impl Netlink {
    /// Limits what an interface sends, in place of what limited it before.
    ///
    /// # Errors
    /// The interface is gone, or the kernel was built without tbf ([`is_not_found`](crate::Error::is_not_found) either way).
    pub fn replace_token_bucket(&self, link: IfIndex, bucket: &TokenBucket) -> Result<()> {
        let mut message = root_of(link);
        message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(bucket.options())];
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .during("limit the rate of link", format_args!("#{link} to {} bytes/s", bucket.rate))
    }

    /// Rate and limit of the token bucket at an interface; `None` if there is none. The kernel gives the burst in time only.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refused.
    pub fn token_bucket(&self, link: IfIndex) -> Result<Option<(u64, u32)>> {
        // The kernel sends the answer as a notice, which the asker gets only if it wants an echo.
        match self.request(RouteNetlinkMessage::GetQueueDiscipline(root_of(link)), NLM_F_ECHO) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewQueueDiscipline(message) => read(&message),
                _ => None,
            })),
            Err(Failure::Kernel { errno: libc::ENOENT, .. }) => Ok(None),
            Err(failure) => Err(failure).during("read the rate limit of link", format_args!("#{link}")),
        }
    }
}

impl TokenBucket {
    fn options(&self) -> Vec<TcOption> {
        let mut parameters = vec![0; PARAMETERS_BYTES];
        parameters[1] = ETHERNET;
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        parameters[RATE_AT..RATE_AT + 4].copy_from_slice(&rate.to_ne_bytes());
        parameters[LIMIT_AT..LIMIT_AT + 4].copy_from_slice(&self.limit.to_ne_bytes());
        let option = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
        vec![
            option(PARAMETERS, parameters),
            option(RATE, self.rate.to_ne_bytes().to_vec()),
            option(BURST, self.burst.to_ne_bytes().to_vec()),
        ]
    }
}

fn root_of(link: IfIndex) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = link.get().cast_signed();
    message.header.parent = TcHandle::ROOT;
    message
}

fn read(message: &TcMessage) -> Option<(u64, u32)> {
    let is_tbf = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == KIND);
    message.attributes.iter().find(|attribute| is_tbf(attribute))?;
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    })?;
    // What the library has no words for comes as one attribute that holds the others.
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let value = |wanted: u16| attributes(&bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec());
    let parameters = value(PARAMETERS)?;
    let number = |at: usize| parameters.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    // Only rates that do not fit into 32 bits come apart.
    let large = value(RATE).and_then(|rate| rate.try_into().ok()).map(u64::from_ne_bytes);
    Some((large.unwrap_or(u64::from(number(RATE_AT)?)), number(LIMIT_AT)?))
}
