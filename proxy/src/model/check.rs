//! Checks that several kinds of object share: names, protocols, port numbers.

use std::sync::Arc;

use super::{
    ObjectError, Protocol, ServiceName,
    error::{Check, Problem},
};

const PORT: &str = "1 to 65535";

/// `metadata.name` and `metadata.namespace`.
///
/// The characters are checked because names end up in nft comments and on terminals, and manifests come from anyone.
pub(super) fn object_name(check: &Check) -> Result<ServiceName, ObjectError> {
    const ALLOWED: &str = "1 to 253 of a-z, 0-9, '-' and '.'";
    let object = check.object();
    if object.name.is_empty() {
        return Err(check.refuse("metadata.name", Problem::Missing { allowed: ALLOWED }));
    }
    if !is_object_name(&object.name) {
        return Err(check.refuse("metadata.name", Problem::invalid(&object.name, ALLOWED)));
    }
    // A Node has no namespace; the others always have one here.
    if !object.namespace.is_empty() && !is_object_name(&object.namespace) {
        return Err(check.refuse("metadata.namespace", Problem::invalid(&object.namespace, ALLOWED)));
    }
    Ok(ServiceName { namespace: object.namespace.clone(), name: object.name.clone() })
}

/// The name of a port; it may be empty.
pub(super) fn port_name(check: &Check, field: &str, name: &str) -> Result<Arc<str>, ObjectError> {
    // Service ports have DNS labels; 63 of them is also what the API server asks of a slice's port.
    if name.len() > 63 || !name.bytes().all(is_label_byte) {
        let problem = Problem::invalid(name, "empty, or 1 to 63 of a-z, 0-9 and '-'");
        return Err(check.refuse(format!("{field}.name"), problem));
    }
    // Nearly every port of a cluster may have this name, and there is one empty text for all.
    Ok(if name.is_empty() { Arc::default() } else { name.into() })
}

/// Whether an object can have this name: a DNS subdomain, without its rules on where dots and dashes may stand.
pub(super) fn is_object_name(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.bytes().all(|b| is_label_byte(b) || b == b'.')
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
}

/// A protocol; empty means TCP (2.6).
pub(super) fn protocol(check: &Check, field: &str, text: &str) -> Result<Protocol, ObjectError> {
    match text {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        _ => Err(check.refuse(format!("{field}.protocol"), Problem::invalid(text, "TCP, UDP or SCTP"))),
    }
}

/// A port number that must be there.
pub(super) fn port(check: &Check, field: String, number: i64) -> Result<u16, ObjectError> {
    match optional_port(check, &field, number)? {
        Some(port) => Ok(port),
        None => Err(check.refuse(field, Problem::Missing { allowed: PORT })),
    }
}

/// A port number, where 0 means that there is none.
pub(super) fn optional_port(check: &Check, field: &str, number: i64) -> Result<Option<u16>, ObjectError> {
    match u16::try_from(number) {
        Ok(0) => Ok(None),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(check.refuse(field, Problem::invalid(number, PORT))),
    }
}
