//! Host ports where the kernel has no nftables, or where the configuration says so: chains of our own in iptables' table nat.
//!
//! Rules carry the same comments as elements of our nftables table, so DEL and GC find them. One rule a mapping: iptables has no
//! maps, so here a new connection to the node is compared with every host port.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{
    claim::{Claim, Comment, Holder},
    mapping::{Masquerade, Protocol},
};
use crate::{
    config::Config,
    error::{Code, Error},
};

/// Our chains: translation, and masquerading.
const PORTS: &str = "WEFT-HOSTPORTS";
const SOURCES: &str = "WEFT-HOSTPORTS-SRC";

/// Runtimes may give us no PATH.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The rules that lead to our chains.
const ENTRANCES: [&str; 3] = [
    "PREROUTING -m addrtype --dst-type LOCAL -j WEFT-HOSTPORTS",
    "OUTPUT -m addrtype --dst-type LOCAL -j WEFT-HOSTPORTS",
    "POSTROUTING -m conntrack --ctstate DNAT -j WEFT-HOSTPORTS-SRC",
];

/// Adds claims in front of those that are there: the later pod wins.
pub(super) fn add(config: &Config, claims: &[Claim]) -> Result<(), Error> {
    let mark = mark(config);
    let written = mark.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&mark, ""));
    written.map_err(|error| Error::new(Code::Io, format!("write {}: {error}", mark.display())))?;
    for v4 in [true, false] {
        let claims: Vec<_> = claims.iter().filter(|claim| claim.pod.is_ipv4() == v4).collect();
        if claims.is_empty() {
            continue;
        }
        let present = save(v4)?;
        // Declaring a chain that is there would empty it.
        let chains = [PORTS, SOURCES].into_iter().filter(|chain| !has_chain(&present, chain));
        let mut lines: Vec<String> = chains.map(|chain| format!(":{chain} - [0:0]")).collect();
        let entrances = ENTRANCES.iter().filter(|rule| !present.iter().any(|line| line == &format!("-A {rule}")));
        lines.extend(entrances.map(|rule| format!("-A {rule}")));
        lines.extend(claims.iter().flat_map(|claim| rules(claim)).map(|rule| format!("-I {rule}")));
        restore(v4, &lines)?;
    }
    Ok(())
}

/// Removes the claims of some holders and returns them; with the last one the chains go too.
pub(super) fn remove(config: &Config, whose: &dyn Fn(&Holder) -> bool) -> Result<Vec<Claim>, Error> {
    let (mark, mut removed, mut kept) = (mark(config), Vec::new(), 0);
    // Looking would cost milliseconds of every DEL.
    if !mark.exists() {
        return Ok(removed);
    }
    for v4 in [true, false] {
        let present = save(v4)?;
        let ours: Vec<_> = present.iter().filter(|line| holder(line).is_some_and(|holder| whose(&holder))).collect();
        removed.extend(ours.iter().filter_map(|line| claim(line)));
        let mut lines: Vec<String> = ours.iter().map(|line| line.replacen("-A ", "-D ", 1)).collect();
        let others = present.iter().filter(|line| holder(line).is_some()).count() - ours.len();
        kept += others;
        if others == 0 && has_chain(&present, PORTS) {
            let entrances = ENTRANCES.iter().filter(|rule| present.iter().any(|line| line == &format!("-A {rule}")));
            lines.extend(entrances.map(|rule| format!("-D {rule}")));
            lines.extend([PORTS, SOURCES].into_iter().flat_map(|chain| [format!("-F {chain}"), format!("-X {chain}")]));
        }
        if !lines.is_empty() {
            restore(v4, &lines)?;
        }
    }
    if kept == 0 {
        let _ = fs::remove_file(mark);
    }
    Ok(removed)
}

/// All claims there are.
pub(super) fn claims() -> Result<Vec<Claim>, Error> {
    let mut claims = Vec::new();
    for v4 in [true, false] {
        claims.extend(save(v4)?.iter().filter_map(|line| claim(line)));
    }
    Ok(claims)
}

/// Fails unless the rules of the claims are there, and the way to them.
pub(super) fn check(claims: &[Claim]) -> Result<(), Error> {
    let missing = |what: String| Err(Error::new(Code::NotAsMade, format!("iptables table nat lacks {what}")));
    for v4 in [true, false] {
        let of_family: Vec<_> = claims.iter().filter(|claim| claim.pod.is_ipv4() == v4).collect();
        if of_family.is_empty() {
            continue;
        }
        let present = save(v4)?;
        if let Some(entrance) = ENTRANCES.iter().find(|rule| !present.iter().any(|line| line == &format!("-A {rule}")))
        {
            return missing((*entrance).to_owned());
        }
        for wanted in of_family {
            if !present.iter().any(|line| claim(line).is_some_and(|found| found.equals(wanted))) {
                return missing(format!("the rule of host port {} to {}", wanted.port(), wanted.pod));
            }
        }
    }
    Ok(())
}

/// Whether iptables can be run.
pub(super) fn status() -> Result<(), Error> {
    save(true).map(drop)
}

/// A file that says that there may be rules in iptables.
fn mark(config: &Config) -> PathBuf {
    config.data_dir.join(format!(".{}.hostports-iptables", config.name))
}

/// The rules of a claim, without `-A` or `-I`, as iptables-save writes them.
fn rules(claim: &Claim) -> Vec<String> {
    let (protocol, pod) = (claim.protocol.name(), claim.pod);
    let length = if pod.is_ipv4() { 32 } else { 128 };
    let comment = format!("-m comment --comment \"{}\"", claim.comment());
    let to = if claim.host.is_unspecified() { String::new() } else { format!(" -d {}/{length}", claim.host) };
    let mut rules = vec![format!(
        "{PORTS}{to} -p {protocol} -m {protocol} --dport {} {comment} -j DNAT --to-destination {pod}",
        claim.host_port
    )];
    let mut masquerade = |from: &str| {
        let to = format!("-d {}/{length} -p {protocol} -m {protocol} --dport {}", pod.ip(), pod.port());
        rules.push(format!("{SOURCES}{from} {to} {comment} -j MASQUERADE"));
    };
    match claim.masquerade {
        Masquerade::Never => {}
        Masquerade::Always => masquerade(""),
        Masquerade::WhereNeeded => {
            masquerade(&format!(" -s {}/{length}", pod.ip()));
            if pod.is_ipv4() {
                masquerade(" -s 127.0.0.0/8");
            }
        }
    }
    rules
}

/// Whose a rule is.
fn holder(line: &str) -> Option<Holder> {
    Comment::parse(line.split('"').nth(1)?).map(|comment| comment.holder)
}

/// Reads a translation back; `None` for all other rules.
fn claim(line: &str) -> Option<Claim> {
    let after = |option: &str| line.split(option).nth(1)?.split(' ').next();
    line.strip_prefix("-A ")?.strip_prefix(PORTS)?.strip_prefix(' ')?;
    let pod: SocketAddr = after(" --to-destination ")?.parse().ok()?;
    let any = if pod.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let host = after(" -d ").map_or(Some(any), |text| text.split('/').next()?.parse().ok())?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| after(" -p ") == Some(protocol.name()))?;
    let comment = Comment::parse(line.split('"').nth(1)?)?;
    Some(comment.claim(host, protocol, after(" --dport ")?.parse().ok()?, pod))
}

fn has_chain(present: &[String], chain: &str) -> bool {
    present.iter().any(|line| line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) == Some(chain))
}

/// The lines of table nat.
fn save(v4: bool) -> Result<Vec<String>, Error> {
    let text = run(if v4 { "iptables-save" } else { "ip6tables-save" }, &["-t", "nat"], "")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Carries out commands on table nat in one transaction, waiting for others that use iptables.
fn restore(v4: bool, lines: &[String]) -> Result<(), Error> {
    let program = if v4 { "iptables-restore" } else { "ip6tables-restore" };
    run(program, &["--noflush", "-w", "5"], &format!("*nat\n{}\nCOMMIT\n", lines.join("\n"))).map(drop)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |why: String| Error::new(Code::Network, format!("{program}: {why}"));
    let path = DIRECTORIES.iter().map(|directory| PathBuf::from(directory).join(program)).find(|path| path.exists());
    let path = path.ok_or_else(|| failed("it is not installed, and the kernel has no nftables".to_owned()))?;
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // Small enough for the pipe; iptables-save does not read.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    if !input.is_empty() {
        written.map_err(|error| failed(error.to_string()))?;
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
