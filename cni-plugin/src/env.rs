//! The environment variables a runtime passes: which are needed, and what they may hold (R1.4 to R1.6).

use crate::{
    error::{Code, Error},
    ipam::Owner,
};

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The checked environment. Variables a command does not need may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) command: Command,
    pub(crate) container_id: String,
    /// Path of the sandbox's network namespace, as the runtime wrote it.
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// `CNI_ARGS`, not parsed: only ADD minds what is in it.
    pub(crate) args: String,
    /// `CNI_PATH`: directories of plugins, separated by colons.
    pub(crate) path: String,
    /// `CNI_NETNS_OVERRIDE`: the sandbox may be the plugin's own network namespace.
    pub(crate) allow_own_netns: bool,
}

impl Environment {
    /// Whose what ADD makes is.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { container_id: &self.container_id, ifname: &self.ifname }
    }
}

/// Reads the environment; `None` when there is no `CNI_COMMAND`: someone runs the plugin by hand (R1.5).
pub(crate) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Environment>, Error> {
    // Unset and empty are the same (R1.2).
    let value = |name: &str| variable(name).unwrap_or_default();
    let command = match value("CNI_COMMAND").as_str() {
        "" => return Ok(None),
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        "VERSION" => Command::Version,
        other => return Err(invalid(format!("unknown CNI_COMMAND: {other}"), "")),
    };
    let missing: Vec<_> = required(command).iter().copied().filter(|name| value(name).is_empty()).collect();
    if !missing.is_empty() {
        return Err(invalid(format!("required env variables [{}] missing", missing.join(",")), ""));
    }
    let environment = Environment {
        command,
        container_id: value("CNI_CONTAINERID"),
        netns: value("CNI_NETNS"),
        ifname: value("CNI_IFNAME"),
        args: value("CNI_ARGS"),
        path: value("CNI_PATH"),
        allow_own_netns: matches!(value("CNI_NETNS_OVERRIDE").to_ascii_uppercase().as_str(), "TRUE" | "1"),
    };
    if matches!(command, Command::Add | Command::Check | Command::Del) {
        check_container_id(&environment.container_id)?;
        check_ifname(&environment.ifname)?;
    }
    Ok(Some(environment))
}

const fn required(command: Command) -> &'static [&'static str] {
    match command {
        Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
        Command::Gc | Command::Status => &["CNI_PATH"],
        Command::Version => &[],
    }
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`: what container IDs and network names may look like. They become file names.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_container_id(id: &str) -> Result<(), Error> {
    if is_identifier(id) { Ok(()) } else { Err(invalid("invalid characters in containerID", id)) }
}

/// The kernel's rule for interface names (dev_valid_name).
fn check_ifname(name: &str) -> Result<(), Error> {
    if name.len() > 15 {
        return Err(invalid("interface name is too long", "interface name should be less than 16 characters"));
    }
    if name == "." || name == ".." {
        return Err(invalid("interface name is . or ..", ""));
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(invalid("interface name contains / or : or whitespace characters", ""));
    }
    Ok(())
}

fn invalid(message: impl Into<String>, details: impl Into<String>) -> Error {
    Error::with_details(Code::InvalidEnvironment, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<Option<Environment>, Error> {
        read(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn with(command: &'static str, id: &'static str, ifname: &'static str) -> [(&'static str, &'static str); 5] {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", ifname),
            ("CNI_PATH", "/opt/cni/bin"),
        ]
    }

    #[test]
    fn r1_4_all_missing_variables_are_named_together() {
        let cases = [
            ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
            ("GC", "CNI_PATH"),
            ("STATUS", "CNI_PATH"),
        ];
        for (command, missing) in cases {
            let error = read_pairs(&[("CNI_COMMAND", command), ("CNI_IFNAME", "")]).unwrap_err();
            assert_eq!(error.message, format!("required env variables [{missing}] missing"));
            assert_eq!(error.code, Code::InvalidEnvironment);
        }
        assert!(read_pairs(&[("CNI_COMMAND", "VERSION")]).unwrap().is_some());
    }

    #[test]
    fn r1_5_no_command_is_no_error() {
        assert_eq!(read_pairs(&[]), Ok(None));
        assert_eq!(read_pairs(&[("CNI_COMMAND", "")]), Ok(None));
    }

    #[test]
    fn r1_6_invalid_values_are_refused() {
        let cases = [
            (with("FROB", "x", "eth0"), "unknown CNI_COMMAND: FROB"),
            (with("add", "x", "eth0"), "unknown CNI_COMMAND: add"),
            (with("ADD", "../x", "eth0"), "invalid characters in containerID"),
            (with("DEL", "-x", "eth0"), "invalid characters in containerID"),
            (with("ADD", "x", "sixteen-bytes-xx"), "interface name is too long"),
            (with("ADD", "x", ".."), "interface name is . or .."),
            (with("ADD", "x", "a/b"), "interface name contains / or : or whitespace characters"),
            (with("CHECK", "x", "a b"), "interface name contains / or : or whitespace characters"),
        ];
        for (pairs, message) in cases {
            let error = read_pairs(&pairs).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::InvalidEnvironment, message));
        }
        assert!(read_pairs(&with("ADD", "0a_b.c-d", "fifteen-bytes-x")).unwrap().is_some());
    }

    #[test]
    fn r1_10_override_is_read_in_any_case() {
        for (value, allowed) in [("TRUE", true), ("true", true), ("1", true), ("", false), ("yes", false)] {
            let mut pairs = with("ADD", "x", "eth0").to_vec();
            pairs.push(("CNI_NETNS_OVERRIDE", value));
            assert_eq!(read_pairs(&pairs).unwrap().unwrap().allow_own_netns, allowed, "{value}");
        }
    }
}
