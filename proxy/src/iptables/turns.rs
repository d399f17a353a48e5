//! Whose turn it is in each round robin, kept when the legacy variant would forget it.
//!
//! Each rule with `-m statistic --mode nth` counts in the kernel. The legacy variant replaces a table as a whole, whatever
//! changed in it, and then the kernel makes all those counters anew: every Service would start again at its first endpoint,
//! and one that gets less than a connection between two changes would use no other. So, with each transaction, chains whose
//! turn has moved on are written once more, with the turn they had reached as their start. Connections between reading and
//! writing are not seen; the turn is then off by their number. The nft variant changes only the chains it is told to.

use std::collections::HashSet;

use super::{listing::Line, names::Table, service::Rules, transaction::Transaction};

/// Chains to write once more, from a listing of the table nat.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    current: RoundRobin,
    moved: Vec<RoundRobin>,
}

/// One chain that balances.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    name: String,
    rules: Rules,
    /// Index of the first rule with a turn.
    first: Option<usize>,
    /// Connections given to endpoints in turn since it was written.
    packets: u64,
}

impl Turns {
    pub(crate) fn add(&mut self, line: Line<'_>) {
        let Line::Rule { chain, rule, packets } = line else { return };
        if !(chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SVL-")) {
            return;
        }
        if self.current.name != chain {
            self.finish_chain();
            chain.clone_into(&mut self.current.name);
        }
        self.current.add(rule, packets);
    }

    fn finish_chain(&mut self) {
        let done = std::mem::take(&mut self.current);
        if done.has_moved() {
            self.moved.push(done);
        }
    }

    /// Adds the chains whose turn has moved to a transaction, except those it writes or deletes anyway.
    pub(crate) fn keep(mut self, transaction: &mut Transaction) {
        self.finish_chain();
        let written: HashSet<String> = transaction.nat().chains().map(str::to_owned).collect();
        for chain in self.moved.into_iter().filter(|chain| !written.contains(&chain.name)) {
            let name = chain.name.clone();
            transaction.table(Table::Nat).rewrite(&name, chain.into_rules_at_turn());
        }
    }
}

impl RoundRobin {
    pub(super) fn add(&mut self, rule: &str, packets: u64) {
        if self.first.is_none() && every(rule).is_some() {
            self.first = Some(self.rules.len());
        }
        if self.first.is_some() {
            self.packets += packets;
        }
        self.rules.push(rule.to_owned());
    }

    fn has_moved(&self) -> bool {
        self.turns().is_some_and(|(count, _)| !self.packets.is_multiple_of(count))
    }

    /// Number of endpoints, and whose turn it is now.
    pub(super) fn turns(&self) -> Option<(u64, u64)> {
        let first = self.rules.get(self.first?)?;
        let (count, packet) = every(first)?;
        // It started with the endpoint for which the first rule had `packet` connections to wait.
        Some((count, (count - packet % count + self.packets) % count))
    }

    /// The same rules with the turn as their start.
    fn into_rules_at_turn(self) -> Rules {
        let Some((count, turn)) = self.turns() else { return self.rules };
        let first = self.first.unwrap_or_default();
        let restart = |(index, rule): (usize, String)| {
            let Some((before, _)) = rule.split_once(" --packet ") else { return rule };
            let Some((_, target)) = rule.split_once(" -j ") else { return rule };
            // Endpoints before the turn wait until the rest of the round is through; the others start afresh.
            let endpoint = (index - first) as u64;
            let wait = if endpoint < turn { count - turn } else { 0 };
            format!("{before} --packet {wait} -j {target}")
        };
        self.rules.into_iter().enumerate().map(restart).collect()
    }
}

/// N and the first packet of `--mode nth --every N --packet P`.
fn every(rule: &str) -> Option<(u64, u64)> {
    let (_, rest) = rule.split_once("--mode nth --every ")?;
    let mut words = rest.split(' ');
    let count = words.next()?.parse().ok().filter(|count| *count > 0)?;
    let packet = match (words.next(), words.next()) {
        (Some("--packet"), Some(packet)) => packet.parse().ok()?,
        _ => 0,
    };
    Some((count, packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rules of `--mode nth` do in the kernel: each counts the connections it sees.
    struct Kernel {
        rules: Vec<(u64, u64, u64)>,
    }

    impl Kernel {
        fn load(rules: &Rules) -> Self {
            let rule = |rule: &String| every(rule).map_or((1, 0, 0), |(count, packet)| (count, packet, 0));
            Self { rules: rules.iter().map(rule).collect() }
        }

        fn connect(&mut self) -> usize {
            self.rules
                .iter_mut()
                .position(|(count, packet, seen)| {
                    *seen += 1;
                    (*seen - 1) % *count == *packet
                })
                .expect("the last rule takes all")
        }
    }

    fn chain(count: usize) -> Rules {
        let rule = |index| match count - index {
            1 => "-j KUBE-SEP-1".to_owned(),
            left => format!("-m statistic --mode nth --every {left} --packet 0 -j KUBE-SEP-{left}"),
        };
        (0..count).map(rule).collect()
    }

    /// The chain after `packets` connections and one rewrite.
    fn rewritten(rules: &Rules, packets: usize) -> Rules {
        let mut kernel = Kernel::load(rules);
        let mut counters = vec![0; rules.len()];
        (0..packets).for_each(|_| counters[kernel.connect()] += 1);
        let mut turns = Turns::default();
        for (rule, packets) in rules.iter().zip(counters) {
            turns.add(Line::Rule { chain: "KUBE-SVC-A", rule, packets });
        }
        turns.finish_chain();
        turns.moved.pop().map_or_else(|| rules.clone(), RoundRobin::into_rules_at_turn)
    }

    #[test]
    fn the_round_goes_on_after_any_number_of_rewrites() {
        for count in 2..8 {
            for packets in 0..20 {
                let again = (0..count).fold(chain(count), |rules, _| rewritten(&rules, packets));
                let mut kernel = Kernel::load(&again);
                for connection in packets * count..packets * count + 3 * count {
                    assert_eq!(kernel.connect(), connection % count, "{count} endpoints, {packets} connections");
                }
            }
        }
    }

    #[test]
    fn rules_before_the_round_stay() {
        let mark = "-d 10.96.0.1/32 -j KUBE-MARK-MASQ".to_owned();
        let rules: Rules = std::iter::once(mark.clone()).chain(chain(3)).collect();
        let mut turns = Turns::default();
        for (rule, packets) in rules.iter().zip([9, 1, 0, 0]) {
            turns.add(Line::Rule { chain: "KUBE-SVL-A", rule, packets });
        }
        let mut transaction = Transaction::default();
        turns.keep(&mut transaction);
        let expected = "*nat\n:KUBE-SVL-A - [0:0]\n-A KUBE-SVL-A -d 10.96.0.1/32 -j KUBE-MARK-MASQ\n\
             -A KUBE-SVL-A -m statistic --mode nth --every 3 --packet 2 -j KUBE-SEP-3\n\
             -A KUBE-SVL-A -m statistic --mode nth --every 2 --packet 0 -j KUBE-SEP-2\n\
             -A KUBE-SVL-A -j KUBE-SEP-1\nCOMMIT\n";
        assert_eq!(transaction.input().concat(), expected);
    }

    #[test]
    fn chains_of_the_transaction_are_left_to_it() {
        let mut turns = Turns::default();
        for rule in &chain(2) {
            turns.add(Line::Rule { chain: "KUBE-SVC-A", rule, packets: 1 });
            turns.add(Line::Rule { chain: "KUBE-SVC-A", rule, packets: 0 });
        }
        let mut transaction = Transaction::default();
        transaction.table(Table::Nat).delete("KUBE-SVC-A");
        let before = transaction.clone();
        turns.keep(&mut transaction);
        assert_eq!(transaction, before);
    }
}
