//! Kernel parameters of conntrack, written at start (kube-proxy.md 10.10).
//!
//! kube-proxy ends when one cannot be written. Weft goes on, for no connection depends on it, and says so in log and status.

use tracing::{debug, info, warn};
use weft_proxy::conntrack::{self, ConntrackParameters, Parameter, Setting};

use crate::{causes, status::ParameterStatus};

/// Writes what differs, in the network namespace of the calling thread; one that fails does not hold up the others.
pub(crate) fn apply(asked: &ConntrackParameters) -> Vec<ParameterStatus> {
    // Loads the module: its parameters are not there before.
    if let Err(error) = weft_netlink::Conntrack::open() {
        debug!(%error, "conntrack cannot be opened");
    }
    conntrack::settings(asked, conntrack::online_cpus()).into_iter().map(set).collect()
}

fn set(setting: Setting) -> ParameterStatus {
    let name = match setting.parameter {
        Parameter::Sysctl(name) => name,
        Parameter::HashSize => "module/nf_conntrack/parameters/hashsize",
    };
    let value = setting.value;
    let error = match conntrack::apply(&[setting]) {
        Ok(written) => {
            if !written.is_empty() {
                info!(parameter = name, value, "set");
            }
            None
        }
        Err(error) => {
            let error = causes::explained(&error);
            warn!(parameter = name, value, error, "cannot set a kernel parameter of conntrack; it stays as it is");
            Some(error)
        }
    };
    ParameterStatus { name: name.to_owned(), value, error }
}
