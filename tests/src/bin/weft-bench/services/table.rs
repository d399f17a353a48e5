//! The report as text: tables of Markdown that a terminal shows as well.

use std::fmt;

use super::{Mode, Report, Row, paths::Figure};

/// To reach, by data plane (issue 3; baseline.md for iptables, where kube-proxy is what there is to compare with).
const TARGETS: &str = "To reach. ebpf: ClusterIP / direct >= 0.97, direct / ref >= 0.90, programmed <= 1 s, change p50 <= 5 ms and \
p99 <= 20 ms, 10 changes a second <= 2 % of a processor, RSS <= 60 MB. nftables: programmed <= 3 s, change p50 <= 20 ms, peak <= 200 MB. \
iptables (legacy): kube-proxy's 9.8 s, 1,380 / 1,876 ms and 316 + 239 MB at 10,000 Services. Repair <= 1 s.";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### Ratios\n")?;
        let heads = ["direct / ref", "first / direct", "last / direct", "outside / ref", "NodePort / outside"];
        head(f, &["mode", "Services"], &heads)?;
        for row in &self.rows {
            let paths = ["direct", "ClusterIP, first", "ClusterIP, last", "outside, direct", "NodePort"];
            let ratio = |path: &&str| {
                let figure = row.paths.0.iter().find(|figure| figure.path == *path);
                figure.map_or_else(String::new, |figure| format!("{:.2} ({:.2})", figure.rate_ratio, figure.p50_ratio))
            };
            line(f, row, paths.iter().map(ratio))?;
        }
        writeln!(f, "\nRate of new connections, and in brackets their median latency.\n\n### Programming\n")?;
        let heads = [
            "from nothing, ms",
            "CPU, ms",
            "RSS, MB",
            "peak, MB",
            "kernel, MB",
            "change p50, ms",
            "p99, ms",
            "CPU at 10/s, %",
            "RSS, MB",
            "repair, ms",
        ];
        head(f, &["mode", "Services"], &heads)?;
        for row in &self.rows {
            let cells = row.started.cells().into_iter().chain(row.changed.cells()).chain([row.repair_ms]);
            line(f, row, cells.map(|cell| if cell < 20.0 { format!("{cell:.1}") } else { format!("{cell:.0}") }))?;
        }
        writeln!(f, "\n### Paths\n")?;
        let heads =
            ["path", "conn/s", "ratio", "p50 us", "ratio", "p99 us", "ratio", "64 B us", "ratio", "Gbit/s", "ratio"];
        head(f, &["mode", "Services"], &heads)?;
        for row in &self.rows {
            for figure in &row.paths.0 {
                line(f, row, cells(figure).into_iter())?;
            }
        }
        for (row, figure) in self.rows.iter().flat_map(|row| row.paths.0.iter().map(move |figure| (row, figure))) {
            if let Some(failure) = &figure.failure {
                let Row { mode, services, .. } = row;
                writeln!(
                    f,
                    "\n{mode}, {services} Services, {}: {} connections FAILED: {failure}",
                    figure.path, figure.failed
                )?;
            }
        }
        write!(f, "\n{TARGETS}")
    }
}

fn cells(figure: &Figure) -> [String; 11] {
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    [
        figure.path.to_owned(),
        format!("{:.0}", figure.rate),
        format!("{:.2}", figure.rate_ratio),
        format!("{:.1}", figure.p50_us),
        format!("{:.2}", figure.p50_ratio),
        format!("{:.0}", figure.p99_us),
        format!("{:.2}", figure.p99_ratio),
        format!("{:.1}", figure.round_trip_us),
        format!("{:.2}", figure.round_trip_ratio),
        optional(figure.gbit),
        optional(figure.gbit_ratio),
    ]
}

fn head(f: &mut fmt::Formatter<'_>, left: &[&str], right: &[&str]) -> fmt::Result {
    writeln!(f, "| {} | {} |", left.join(" | "), right.join(" | "))?;
    writeln!(f, "|{}{}", "---|".repeat(left.len()), "---:|".repeat(right.len()))
}

fn line(f: &mut fmt::Formatter<'_>, row: &Row, cells: impl Iterator<Item = String>) -> fmt::Result {
    let cells: Vec<String> = cells.collect();
    let mode = if row.mode == Mode::Iptables { "iptables (legacy)" } else { row.mode.name() };
    writeln!(f, "| {mode} | {} | {} |", row.services, cells.join(" | "))
}
