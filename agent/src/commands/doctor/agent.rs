//! What the running agent says about itself.

use super::finding::{Area, Finding};
use crate::status::{MapStatus, Status};

const AREA: Area = Area::Agent;

/// Share of a map's room, in percent, from which it is told.
const FILLING: u64 = 80;

/// All of them; `Err`: why it could not be asked.
pub(super) fn check(status: Result<&Status, &str>) -> Vec<Finding> {
    let status = match status {
        Ok(status) => status,
        Err(why) => {
            let note = Finding::note(AREA, "agent", why.lines().next().unwrap_or_default());
            return vec![
                note.advise("before Weft is installed all is well with that; else start it, or give its --run-dir"),
            ];
        }
    };
    let mut findings = vec![match status.ready {
        true => Finding::ok(AREA, "agent", format!("{} runs as {} and is ready", status.version, status.node)),
        false => Finding::problem(AREA, "agent", "not ready", "see what follows, `weft status` and the agent's log"),
    }];
    findings.extend(servers(status));
    findings.extend(overlay(status));
    findings.extend(services(status));
    findings.extend(source(status));
    let configuration = &status.configuration;
    findings.extend(configuration.mistakes.iter().map(|mistake| {
        Finding::problem(AREA, "configuration", mistake, "correct the file; until then what was in force before stays")
    }));
    findings.extend(configuration.restart_needed.iter().map(|field| {
        Finding::warning(
            AREA,
            "configuration",
            format!("{field} has changed"),
            "restart the agent for it to take effect",
        )
    }));
    findings
}

/// What to do about them is in the message: it depends on who has the port.
fn servers(status: &Status) -> Vec<Finding> {
    let failed = status.servers.iter().filter_map(|server| server.error.as_ref());
    let advice = "the agent tries again every 5 s; probes and Prometheus do not reach it before";
    failed.map(|error| Finding::problem(AREA, "servers", error, advice)).collect()
}

fn overlay(status: &Status) -> Vec<Finding> {
    let Some(overlay) = &status.overlay else { return Vec::new() };
    let error = overlay
        .error
        .iter()
        .map(|error| Finding::problem(AREA, "pod-network", error, "the agent goes on trying; remove the cause"));
    let peers = overlay.peers.iter().filter_map(|peer| Some((peer, peer.error.as_ref()?)));
    let peers = peers.map(|(peer, error)| {
        let seen = format!("peer {} ({}): {error}", peer.subnet, peer.public_ip.as_deref().unwrap_or("no address"));
        Finding::problem(AREA, "peer", seen, "the agent goes on trying; look at the lease or the Node of that peer")
    });
    let rejected = overlay.rejected.iter().map(|lease| {
        let seen = format!("{}: {}", lease.object, lease.reason);
        Finding::problem(AREA, "lease", seen, "correct it there; that node is not reached before")
    });
    error.chain(peers).chain(rejected).collect()
}

fn services(status: &Status) -> Vec<Finding> {
    let Some(proxy) = &status.proxy else { return Vec::new() };
    let mut findings = Vec::new();
    match (&proxy.last_error, proxy.synced) {
        (Some(error), _) => {
            findings.push(Finding::problem(AREA, "services", error, "the agent goes on trying; remove the cause"))
        }
        (None, false) => {
            let advice = "wait for the source of objects; if that is there, see the agent's log";
            findings.push(Finding::problem(AREA, "services", "not in sync with the objects", advice));
        }
        (None, true) => {}
    }
    findings.extend(proxy.maps.iter().filter_map(map));
    findings.extend(proxy.conntrack.iter().filter_map(|parameter| {
        let seen = format!("{} = {} could not be set: {}", parameter.name, parameter.value, parameter.error.as_ref()?);
        Some(Finding::warning(
            AREA,
            "conntrack",
            seen,
            "set it on the node, or give 0 in the configuration to leave it alone",
        ))
    }));
    findings
}

fn map(map: &MapStatus) -> Option<Finding> {
    let full = u64::from(map.used) * 100 / u64::from(map.max.max(1));
    let advice = match &map.flag {
        Some(flag) => format!("give the agent a larger {flag}"),
        None => "fewer Services on this node, or report it".to_owned(),
    };
    let seen = format!("map {}: {} of {} elements", map.name, map.used, map.max);
    match full {
        // Those evict the oldest, and are full as soon as there was much traffic.
        _ if map.name.contains("AFFINITY") || map.name.contains("UDP_") => None,
        100.. => Some(Finding::problem(AREA, "map", seen + "; what does not fit is not served", advice)),
        FILLING.. => Some(Finding::warning(AREA, "map", seen, advice)),
        _ => None,
    }
}

fn source(status: &Status) -> Vec<Finding> {
    let Some(source) = &status.source else { return Vec::new() };
    let mut findings = Vec::new();
    if !source.synced {
        let seen = format!("{} {} has not been listed completely", source.kind, source.location);
        findings.push(Finding::problem(
            AREA,
            "source",
            seen,
            "look at whether it can be reached, and at the agent's log",
        ));
    }
    findings.extend(
        source
            .warnings
            .iter()
            .map(|warning| Finding::warning(AREA, "source", warning, "what is known stays in force; remove the cause")),
    );
    findings.extend(source.rejected.iter().map(|rejected| {
        let seen = format!("{}: {}", rejected.object, rejected.reason);
        Finding::warning(AREA, "object", seen, "correct the object; its last good state stays in force")
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};
    use crate::status::{ProxyStatus, RejectedObject, ServerStatus, SourceStatus};

    fn status() -> Status {
        Status {
            node: "n1".to_owned(),
            version: "1".to_owned(),
            ready: true,
            uptime_seconds: 1,
            components: Vec::new(),
            servers: Vec::new(),
            overlay: None,
            proxy: Some(ProxyStatus { synced: true, ..ProxyStatus::default() }),
            configuration: crate::status::ConfigStatus::default(),
            source: Some(SourceStatus { synced: true, ..SourceStatus::default() }),
        }
    }

    fn found(change: impl FnOnce(&mut Status)) -> Vec<(&'static str, Verdict)> {
        let mut status = status();
        change(&mut status);
        let findings = check(Ok(&status));
        findings.iter().filter(|finding| finding.verdict > Verdict::Ok).map(|f| (f.check, f.verdict)).collect()
    }

    #[test]
    fn what_the_agent_complains_about_is_found() {
        assert_eq!(found(|_| ()), []);
        assert_eq!(found(|status| status.ready = false), [("agent", Verdict::Problem)]);
        assert_eq!(found(|s| s.proxy.as_mut().unwrap().synced = false), [("services", Verdict::Problem)]);
        let reject = |status: &mut Status| {
            let rejected = RejectedObject { object: "Service a/b".to_owned(), reason: "x".to_owned() };
            status.source.as_mut().unwrap().rejected.push(rejected);
        };
        assert_eq!(found(reject), [("object", Verdict::Warning)]);
        assert_eq!(found(|s| s.source.as_mut().unwrap().warnings.push("away".into())), [("source", Verdict::Warning)]);
        assert_eq!(found(|s| s.configuration.mistakes.push("bad".into())), [("configuration", Verdict::Problem)]);
        let taken = |status: &mut Status| {
            let error = Some("cannot serve health".to_owned());
            status.servers = vec![ServerStatus { name: "health".to_owned(), address: String::new(), error }];
        };
        assert_eq!(found(taken), [("servers", Verdict::Problem)]);
        assert_eq!(check(Err("no agent answers\nIs it"))[0].verdict, Verdict::Note);
    }

    #[test]
    fn maps_that_fill_are_told_but_for_those_that_evict() {
        let verdict = |name: &str, used| {
            map(&MapStatus { name: name.to_owned(), used, max: 100, flag: None }).map(|finding| finding.verdict)
        };
        assert_eq!(verdict("SVC4", 79), None);
        assert_eq!(verdict("SVC4", 80), Some(Verdict::Warning));
        assert_eq!(verdict("SVC4", 100), Some(Verdict::Problem));
        assert_eq!(verdict("AFFINITY", 100), None);
    }
}
