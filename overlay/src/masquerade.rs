//! Masquerading of pod traffic that leaves the cluster: our own nftables table, and nobody else's.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use ipnetwork::IpNetwork;

use crate::family::Family;

/// Family and name of our table.
const TABLE: &str = "inet weft-overlay";

/// Set by kube-proxy on packets that it masquerades itself. One bit of a mark others use too, so the rest is masked out
/// (flannel's nft mode compares the whole mark: flannel-defects.md E.1).
const KUBE_PROXY_MARK: &str = "0x4000";

/// `nft` could not do it. Retry: another program may hold the ruleset, or nft may be installed later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasqueradeError {
    /// There is no such program.
    #[error("nft is not installed, and --ip-masq needs it: install nftables or use --ip-masq=false")]
    NoNft,
    /// It could not be run.
    #[error("run nft: {0}")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("nft {doing}: {message}")]
    Refused {
        /// What it was to do.
        doing: &'static str,
        /// What it said.
        message: String,
    },
}

/// One family's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MasqueradedNetwork {
    /// All pods of the cluster.
    pub(crate) network: IpNetwork,
    /// The pods of this node.
    pub(crate) subnet: IpNetwork,
}

/// Our table as it was last written.
#[derive(Debug, Default)]
pub(crate) struct Masquerade {
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    ruleset: String,
    /// The table as `nft` lists it: what it must still look like.
    listing: String,
}

impl Masquerade {
    /// Makes the table be as `networks` say; true if it was not. With `verify` it looks whether what was written is still
    /// there.
    ///
    /// # Errors
    /// [`MasqueradeError`]; the table is then as it was.
    pub(crate) fn ensure(&mut self, networks: &[MasqueradedNetwork], verify: bool) -> Result<bool, MasqueradeError> {
        let ruleset = ruleset(networks);
        if let Some(written) = &self.written
            && written.ruleset == ruleset
            && (!verify || list()?.as_ref() == Some(&written.listing))
        {
            return Ok(false);
        }
        self.written = None;
        run("load the table", &["-f", "-"], &ruleset)?;
        // What is listed now is what must stay; so nobody may have changed it in between.
        let listing = list()?.filter(|listing| rules(listing) == rules(&ruleset));
        let listing = listing.ok_or_else(|| MasqueradeError::Refused {
            doing: "load the table",
            message: "somebody else changed it at once".into(),
        })?;
        self.written = Some(Written { ruleset, listing });
        Ok(true)
    }
}

/// Removes the table; one that is gone is fine. True if there was one.
///
/// # Errors
/// [`MasqueradeError`]; without `nft` there can be no table of ours.
pub(crate) fn remove() -> Result<bool, MasqueradeError> {
    match list() {
        Ok(Some(_)) => {}
        Ok(None) | Err(MasqueradeError::NoNft) => return Ok(false),
        Err(error) => return Err(error),
    }
    // Adding first makes the deletion succeed even if somebody else was faster.
    let text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    run("delete the table", &["-f", "-"], &text).map(|_| true)
}

/// The table as one transaction that replaces it, with the meaning of flannel's iptables rules 1 to 6 (flannel.md section 8).
fn ruleset(networks: &[MasqueradedNetwork]) -> String {
    let mut text = format!(
        "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tmeta mark & {KUBE_PROXY_MARK} == {KUBE_PROXY_MARK} return comment \"kube-proxy masquerades it\"\n"
    );
    for MasqueradedNetwork { network, subnet } in networks {
        let (ip, multicast) = match Family::of(network.ip()) {
            Family::V4 => ("ip", "224.0.0.0/4"),
            Family::V6 => ("ip6", "ff00::/8"),
        };
        let _ = write!(
            text,
            "\t\t{ip} saddr {subnet} {ip} daddr {network} return comment \"pod to pod, outgoing\"\n\
             \t\t{ip} saddr {network} {ip} daddr {subnet} return comment \"pod to pod, incoming\"\n\
             \t\t{ip} saddr != {network} {ip} daddr {subnet} return comment \"outside to local pod keeps its source\"\n\
             \t\t{ip} saddr {network} {ip} daddr != {multicast} masquerade fully-random comment \"pod to outside\"\n\
             \t\t{ip} saddr != {network} {ip} daddr {network} masquerade fully-random comment \"outside to remote pod\"\n"
        );
    }
    text.push_str("\t}\n}\n");
    text
}

/// How many rules a text has: each has a comment.
fn rules(text: &str) -> usize {
    text.matches(" comment \"").count()
}

/// The table as nft prints it; `None` if there is none.
fn list() -> Result<Option<String>, MasqueradeError> {
    let arguments: Vec<&str> = ["-n", "list", "table"].into_iter().chain(TABLE.split(' ')).collect();
    let output = output(&arguments, "")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let message = String::from_utf8_lossy(&output.stderr);
    // nft 1.0 has no other way to say ENOENT; it does not translate the text, because it never calls setlocale for it.
    if message.contains("No such file or directory") {
        return Ok(None);
    }
    Err(MasqueradeError::Refused { doing: "list the table", message: message.trim().into() })
}

fn run(doing: &'static str, arguments: &[&str], input: &str) -> Result<Output, MasqueradeError> {
    let output = output(arguments, input)?;
    if output.status.success() {
        return Ok(output);
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(MasqueradeError::Refused { doing, message })
}

/// Runs nft; the child is in the network namespace of the calling thread.
fn output(arguments: &[&str], input: &str) -> Result<Output, MasqueradeError> {
    let run = || {
        let mut child = Command::new("nft")
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // The ruleset is smaller than a pipe, so writing all of it before reading cannot block.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        match written {
            // It ended without reading: what it said matters more.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(output),
        }
    };
    run().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MasqueradeError::NoNft,
        _ => MasqueradeError::Run(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(network: &str, subnet: &str) -> MasqueradedNetwork {
        MasqueradedNetwork { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }
    }

    #[test]
    fn rules_mean_what_flannels_iptables_rules_mean() {
        let text = ruleset(&[networks("10.244.0.0/16", "10.244.1.0/24")]);
        let rules: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("\t\t"))
            .map(|line| line.split(" comment").next().unwrap())
            .collect();
        assert_eq!(
            rules,
            [
                "type nat hook postrouting priority srcnat; policy accept;",
                "meta mark & 0x4000 == 0x4000 return",
                "ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return",
                "ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return",
                "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random",
            ]
        );
        assert!(text.starts_with("add table inet weft-overlay\ndelete table inet weft-overlay\n"));
    }

    #[test]
    fn ipv6_has_its_own_multicast() {
        let text = ruleset(&[networks("fd44::/48", "fd44:0:0:1::/64")]);
        assert!(text.contains("ip6 saddr fd44::/48 ip6 daddr != ff00::/8 masquerade"), "{text}");
    }
}
