//! The course of a soak.

mod trouble;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use fastrand::Rng;
use weft_tests::{eventually, secs, unix_us};

use crate::{
    addresses::MOST_SERVICES,
    agent::{MARKER_FILE, Watched, log_of, marker},
    history::History,
    judge::Court,
    kernel,
    objects::{NODE, Objects},
    report::{Report, Sample},
    stage::{self, Stage},
    truth::Truth,
};

/// How long the agent may take to follow a batch, a restart on a busy machine included.
const PATIENCE: Duration = secs(120);
/// Most changes between two looks at the agent.
const LARGEST_BATCH: usize = 120;
/// In the last part of the changes the agent is left alone, so that its growth can be seen.
const QUIET_PART: f64 = 0.4;
/// Looks at the agent's size in the quiet part.
const SAMPLES: u64 = 40;

/// The data planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Ebpf,
    Nftables,
    Iptables,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Change Services for a long time in a short time, and look for anything wrong.
#[derive(Args)]
pub(crate) struct Soak {
    /// Data plane.
    #[arg(long, value_enum, default_value = "ebpf")]
    mode: Mode,
    /// Changes of objects; default: 50,000, with iptables 5,000.
    #[arg(long, value_name = "N")]
    changes: Option<u64>,
    /// Services.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SERVICES)))]
    services: u32,
    /// The same seed makes the same changes; default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Attempts a second from each of the three places.
    #[arg(long, default_value_t = 150)]
    rate: u32,
    /// Write the report to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write every attempt of a client to this file, the changes to `FILE.changes`, and the compared states of the kernel to
    /// `FILE.soaked` and `FILE.fresh`.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// A soak at work.
struct Course<'a> {
    mode: Mode,
    stage: Stage,
    court: Court,
    objects: Vec<Objects>,
    rng: Rng,
    version: u64,
    changes: Option<File>,
    report: &'a mut Report,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        let seed = self.seed.unwrap_or_else(|| Rng::new().u64(..1 << 32));
        let changes = self.changes.unwrap_or(if self.mode == Mode::Iptables { 5_000 } else { 50_000 });
        let mut report = Report::new(self.mode.name(), seed, self.services);
        println!("soak of {}: {changes} changes of {} Services, seed {seed}", self.mode.name(), self.services);
        let result = self.course(seed, changes, &mut report);
        if let Err(error) = &result {
            report.failures.push(format!("{error:#}"));
        }
        println!("\n{report}");
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)?;
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        if !report.failures.is_empty() {
            bail!(
                "{} failures; --mode {} --seed {seed} makes the same changes again",
                report.failures.len(),
                report.mode
            );
        }
        Ok(())
    }

    fn course(&self, seed: u64, changes: u64, report: &mut Report) -> Result<()> {
        let mut rng = Rng::with_seed(seed);
        let objects: Vec<_> = (0..self.services).map(|number| Objects::new(number, &mut rng)).collect();
        let cluster = stage::cluster(self.mode.name())?;
        for change in objects.iter().flat_map(Objects::files) {
            cluster.manifests().apply(&change.file, &change.content.unwrap_or_default())?;
        }
        cluster.manifests().apply(MARKER_FILE, &marker(0))?;
        cluster.node(1).agent().start()?;
        let begin = Instant::now();
        cluster.node(1).agent().wait_ready(PATIENCE)?;
        eventually(PATIENCE, || Watched::new(cluster.node(1)).has_applied(0))?;
        report.cold_start_seconds = begin.elapsed().as_secs_f64();
        let mut stage = Stage::set(cluster)?;
        let truths = objects.iter().enumerate().map(|(number, objects)| Truth::of(number as u32, objects));
        let court = Court::new(History::new(truths));
        let (sender, seen) = mpsc::channel();
        let trace = self.trace.as_ref().map(File::create).transpose().context("create the trace")?;
        let judge = court.judge(seen, trace);
        let changes_trace = self.trace.as_ref().map(|trace| File::create(trace.with_added_extension("changes")));
        stage.start_clients(self.services, seed, self.rate, &sender)?;
        drop(sender);
        let mut course = Course {
            mode: self.mode,
            stage,
            court,
            objects,
            rng,
            version: 0,
            changes: changes_trace.transpose()?,
            report,
        };
        let result = course.run(changes);
        let Course { mut stage, court, .. } = course;
        stage.stop_clients()?;
        judge.join().map_err(|_| anyhow::anyhow!("the judge panicked"))?;
        let verdicts = court.verdicts();
        report.take_verdicts(&verdicts);
        result?;
        report.judge_growth();
        self.compare(&stage, report)?;
        let log = fs::read_to_string(log_of(stage.cluster.node(1).directory())).unwrap_or_default();
        report.log_errors = log.lines().filter(|line| line.contains("ERROR")).count();
        report.log_panics(&log);
        stage.end()
    }

    /// Compares the node with another one, whose agent sees the last state only.
    fn compare(&self, stage: &Stage, report: &mut Report) -> Result<()> {
        let (soaked, fresh) = (stage.cluster.node(1), stage.cluster.node(2));
        let flags = [("--components", "proxy"), ("--hostname-override", NODE)];
        fresh.agent().start_with(&flags)?;
        fresh.agent().wait_ready(PATIENCE)?;
        eventually(PATIENCE, || Watched::new(fresh).proxy().and_then(|proxy| proxy.in_sync()))?;
        // What is removed when there is time is removed by then.
        let equal = || {
            let (soaked, fresh) = (kernel::facts(self.mode, soaked)?, kernel::facts(self.mode, fresh)?);
            let result = kernel::same(&soaked, &fresh);
            if let (Err(_), Some(trace)) = (&result, &self.trace) {
                let text = |facts: BTreeSet<String>| facts.into_iter().collect::<Vec<_>>().join("\n");
                fs::write(trace.with_added_extension("soaked"), text(soaked))?;
                fs::write(trace.with_added_extension("fresh"), text(fresh))?;
            }
            result
        };
        let (facts, _) = eventually(secs(60), equal)?;
        report.facts_compared = facts;
        fresh.agent().stop()
    }
}

impl Course<'_> {
    fn run(&mut self, changes: u64) -> Result<()> {
        let start = Instant::now();
        let noisy = (changes as f64 * (1.0 - QUIET_PART)) as u64;
        // Some five interventions in a short soak, and at most one each 500 changes in a long one.
        let every = (noisy / 6).clamp(1, 2_000);
        let (mut done, mut next_trouble, mut next_sample) = (0, every / 2, noisy);
        let mut last_line = Instant::now();
        while done < changes {
            if done >= next_trouble && done < noisy {
                next_trouble += self.rng.u64(every / 2..=every + every / 2).max(1);
                self.trouble()?;
            }
            done += self.batch(changes - done)?;
            self.report.changes = done;
            self.report.seconds = start.elapsed().as_secs_f64();
            if done >= next_sample {
                next_sample = done + ((changes - noisy) / SAMPLES).max(1);
                self.sample(done);
            }
            let verdicts = self.court.verdicts();
            if last_line.elapsed() > secs(5) || !verdicts.wrong.is_empty() {
                last_line = Instant::now();
                self.progress(done, changes, &verdicts);
            }
            if let Some(wrong) = verdicts.wrong.first() {
                bail!("after {done} changes: {wrong}");
            }
        }
        Ok(())
    }

    /// Changes some Services, each once, so that the agent cannot meet a mix of states that never was; and waits until it
    /// has followed.
    fn batch(&mut self, most: u64) -> Result<u64> {
        let size = self.rng.usize(1..=LARGEST_BATCH).min(usize::try_from(most).unwrap_or(usize::MAX));
        let mut touched: Vec<u32> = (0..size).map(|_| self.rng.u32(..self.objects.len() as u32)).collect();
        touched.sort_unstable();
        touched.dedup();
        self.rng.shuffle(&mut touched);
        self.stage.announce(&touched)?;
        let mut done = 0;
        for &number in &touched {
            let objects = &mut self.objects[number as usize];
            let Some(change) = objects.change(&mut self.rng) else { continue };
            self.court.history().announce(number, Truth::of(number, objects), unix_us());
            if let Some(trace) = &mut self.changes {
                writeln!(trace, "{} {}", unix_us(), change.what)?;
            }
            let manifests = self.stage.cluster.manifests();
            match &change.content {
                Some(content) => manifests.apply(&change.file, content),
                None => manifests.delete(&change.file),
            }
            .with_context(|| change.what)?;
            done += 1;
        }
        self.confirm()?;
        Ok(done)
    }

    /// Waits until the agent has put everything into the kernel that was written.
    fn confirm(&mut self) -> Result<()> {
        self.version += 1;
        let cluster = &self.stage.cluster;
        cluster.manifests().apply(MARKER_FILE, &marker(self.version))?;
        let agent = Watched::new(cluster.node(1));
        let begin = Instant::now();
        eventually(PATIENCE, || agent.has_applied(self.version))
            .with_context(|| format!("the agent does not follow:\n{}", cluster.node(1).agent().log_tail()))?;
        self.report.slowest_batch_ms = self.report.slowest_batch_ms.max(begin.elapsed().as_millis() as u64);
        self.court.history().confirm(unix_us());
        if let Some(trace) = &mut self.changes {
            writeln!(trace, "{} all followed", unix_us())?;
        }
        Ok(())
    }

    fn sample(&mut self, done: u64) {
        let Some(size) = Watched::new(self.stage.cluster.node(1)).size() else { return };
        self.report.samples.push(Sample { changes: done, size });
    }

    fn progress(&self, done: u64, changes: u64, verdicts: &crate::judge::Verdicts) {
        let size = Watched::new(self.stage.cluster.node(1)).size();
        println!(
            "{:6.0} s  {done}/{changes} changes  {} attempts  {} wrong  RSS {} KiB",
            self.report.seconds,
            verdicts.attempts(),
            verdicts.wrong.len(),
            size.map_or(0, |size| size.rss_kib),
        );
    }
}
