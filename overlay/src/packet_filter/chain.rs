//! flannel's iptables chains as text (flannel.md section 8): FLANNEL-FWD lets pods' packets be forwarded, FLANNEL-POSTRTG
//! masquerades.
//!
//! Names, comments and rules are flannel's, so that a flannel that ran here before is taken over, and tools still find them.
//! Better than flannel's: the jump in FORWARD goes first (flannel-defects.md E.4), but for those of Services.

use super::rules::{PodNetworks, multicast};
use crate::family::Family;

/// A chain of flannel's, and the built-in one that jumps to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chain {
    Forward,
    Masquerade,
}

impl Chain {
    pub(super) const ALL: [Self; 2] = [Self::Forward, Self::Masquerade];

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Forward => "filter",
            Self::Masquerade => "nat",
        }
    }

    pub(super) const fn hook(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::Masquerade => "POSTROUTING",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Forward => "FLANNEL-FWD",
            Self::Masquerade => "FLANNEL-POSTRTG",
        }
    }

    pub(super) const fn comment(self) -> &'static str {
        match self {
            Self::Forward => r#"-m comment --comment "flanneld forward""#,
            Self::Masquerade => r#"-m comment --comment "flanneld masq""#,
        }
    }

    pub(super) fn jump(self) -> String {
        format!("{} {} -j {}", self.hook(), self.comment(), self.name())
    }

    /// Before the rules of docker and firewalls, which may drop; behind kube-proxy's masquerading, and behind the `services`
    /// rules in which FORWARD refuses pods what no endpoint serves.
    pub(super) fn add_jump(self, services: usize) -> String {
        match self {
            Self::Forward => {
                let position = format!("FORWARD {}", services + 1);
                format!("-I {}", self.jump().replacen("FORWARD", &position, 1))
            }
            Self::Masquerade => format!("-A {}", self.jump()),
        }
    }

    /// Its rules as `iptables -S` prints them.
    pub(super) fn rules(self, networks: &PodNetworks) -> Vec<String> {
        let (name, comment) = (self.name(), self.comment());
        let PodNetworks { network, subnet } = networks;
        let multicast = multicast(Family::of(network.ip()));
        let rules = match self {
            Self::Forward => {
                vec![format!("-s {network} {comment} -j ACCEPT"), format!("-d {network} {comment} -j ACCEPT")]
            }
            Self::Masquerade => vec![
                format!("-m mark --mark 0x4000/0x4000 {comment} -j RETURN"),
                format!("-s {subnet} -d {network} {comment} -j RETURN"),
                format!("-s {network} -d {subnet} {comment} -j RETURN"),
                format!("! -s {network} -d {subnet} {comment} -j RETURN"),
                format!("-s {network} ! -d {multicast} {comment} -j MASQUERADE --random-fully"),
                format!("! -s {network} -d {network} {comment} -j MASQUERADE --random-fully"),
            ],
        };
        rules.into_iter().map(|rule| format!("-A {name} {rule}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_flannels_text() {
        let networks =
            PodNetworks { network: "10.244.0.0/16".parse().unwrap(), subnet: "10.244.1.0/24".parse().unwrap() };
        assert_eq!(
            Chain::Masquerade.rules(&networks),
            [
                r#"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN"#,
                r#"-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN"#,
                r#"-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN"#,
                r#"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN"#,
                r#"-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully"#,
                r#"-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully"#,
            ]
        );
        assert_eq!(
            Chain::Forward.add_jump(0),
            r#"-I FORWARD 1 -m comment --comment "flanneld forward" -j FLANNEL-FWD"#
        );
    }
}
