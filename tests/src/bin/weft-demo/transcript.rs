//! What the demo prints: numbered steps with details, a verdict and a time each; or the same as JSON.

use std::{
    env,
    io::{IsTerminal, stdout},
    time::Instant,
};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

/// Column in which times end.
const WIDTH: usize = 92;

/// The steps so far.
pub(crate) struct Transcript {
    json: bool,
    colour: bool,
    start: Instant,
    steps: Vec<Step>,
}

/// One step.
#[derive(Serialize)]
struct Step {
    title: String,
    ok: bool,
    /// What was seen, or what was wrong.
    verdict: String,
    seconds: f64,
    details: Vec<String>,
    data: Value,
}

/// Collects what a step shows while it runs.
pub(crate) struct Details {
    print: bool,
    lines: Vec<String>,
    data: Value,
}

impl Details {
    /// Shows a line.
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        let line = line.into();
        if self.print {
            println!("      {line}");
        }
        self.lines.push(line);
    }

    /// Adds a value for `--json`.
    pub(crate) fn value(&mut self, key: &str, value: impl Into<Value>) {
        self.data[key] = value.into();
    }
}

impl Transcript {
    pub(crate) fn new(json: bool) -> Self {
        let colour = stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { json, colour, start: Instant::now(), steps: Vec::new() }
    }

    /// Prints the heading.
    pub(crate) fn title(&self, title: &str) {
        if !self.json {
            println!("{title}");
        }
    }

    /// Does a step: `work` shows details, and returns the verdict and a value. `None` if it fails.
    pub(crate) fn step<T>(&mut self, title: &str, work: impl FnOnce(&mut Details) -> Result<(String, T)>) -> Option<T> {
        if !self.json {
            println!("\n{:>3}. {}", self.steps.len() + 1, self.paint("1", title));
        }
        let begin = Instant::now();
        let mut details = Details { print: !self.json, lines: Vec::new(), data: Value::Object(Default::default()) };
        let result = work(&mut details);
        let seconds = begin.elapsed().as_secs_f64();
        let (ok, verdict, value) = match result {
            Ok((verdict, value)) => (true, verdict, Some(value)),
            Err(error) => (false, format!("{error:#}"), None),
        };
        if !self.json {
            let mark = if ok { self.paint("32", "✓") } else { self.paint("31", "✗") };
            println!("    {mark} {verdict:<width$} {seconds:6.2} s", width = WIDTH - 15);
        }
        self.steps.push(Step {
            title: title.to_owned(),
            ok,
            verdict,
            seconds,
            details: details.lines,
            data: details.data,
        });
        value
    }

    /// Prints lines after the last step, not as JSON.
    pub(crate) fn note(&self, lines: &[String]) {
        if !self.json {
            println!("\n{}", lines.join("\n"));
        }
    }

    /// Prints the end, or everything as JSON; returns whether all steps were as they should be.
    pub(crate) fn finish(self) -> bool {
        let failed = self.steps.iter().filter(|step| !step.ok).count();
        let seconds = self.start.elapsed().as_secs_f64();
        if self.json {
            let all = serde_json::json!({ "ok": failed == 0, "seconds": seconds, "steps": self.steps });
            println!("{all:#}");
        } else if failed == 0 {
            println!("\n{} in {seconds:.1} s.", self.paint("32", "All as it should be"));
        } else {
            println!(
                "\n{} of {} steps failed, after {seconds:.1} s.",
                self.paint("31", &failed.to_string()),
                self.steps.len()
            );
        }
        failed == 0
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
