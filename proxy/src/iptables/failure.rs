//! What goes wrong with the programs, and what they say of it.

use std::io;

use super::variant::Variant;

/// iptables could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XtablesError {
    /// Not usual; the same after a retry.
    #[error(
        "none of the programs `iptables-nft`, `iptables-legacy` and `iptables` is in PATH: install the package `iptables`"
    )]
    Missing,
    /// Not usual: out of processes or memory, or only one family is installed. Retry.
    #[error("run {program}")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    /// Somebody else changed our chains, the lock was not free in time, or the kernel lacks a feature. Retry after reading
    /// the tables again.
    #[error("{program} refused {}: {stderr}", at(line.as_deref()))]
    Refused { program: String, line: Option<String>, stderr: String },
    /// Usual beside a kube-proxy that is to stay. A retry helps once its rules are gone.
    #[error(
        "rules of a kube-proxy are in iptables ({0}), under the names that this mode uses: remove them with \
         `kube-proxy --cleanup`, or let them be replaced with --take-over-kube-proxy"
    )]
    KubeProxy(Variant),
    /// Not usual: a read-only `/proc/sys`.
    #[error("let packets of 127.0.0.1 leave the node")]
    RouteLocalnet(#[source] weft_netlink::Error),
}

fn at(line: Option<&str>) -> String {
    line.map_or_else(|| "its input".to_owned(), |line| format!("`{line}`"))
}

/// The line of the input that the message names (`line 12 failed`), cut to what a log can hold.
pub(crate) fn failed_line(stderr: &str, input: &[&str]) -> Option<String> {
    let (_, rest) = stderr.split_once("line ").or_else(|| stderr.split_once("line: "))?;
    let number: usize = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let line = input.iter().flat_map(|piece| piece.lines()).nth(number.checked_sub(1)?)?;
    Some(line.chars().take(300).collect())
}

/// The first lines may be warnings about the other variant.
pub(crate) fn last_line(stderr: &str) -> String {
    let is_message = |line: &&str| !line.is_empty() && !line.starts_with('#');
    stderr.lines().rev().find(is_message).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_line() {
        let input = ["*nat\n:A - [0:0]\n", "-A A -j B\n", "COMMIT\n"];
        for stderr in [
            "iptables-restore: line 3 failed\n",
            "# Warning: x\niptables-nft-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (Invalid argument): x\n",
        ] {
            assert_eq!(failed_line(stderr, &input).as_deref(), Some("-A A -j B"), "{stderr}");
        }
        assert_eq!(failed_line("no memory", &input), None);
        assert_eq!(last_line("# Warning: x\nfailed\n\n"), "failed");
    }
}
