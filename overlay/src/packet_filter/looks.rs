//! When packet rules are looked at: at once after a notice, and less often while one follows the other.

use std::time::{Duration, Instant};

/// How old a look at tables that report no changes may be; a little less than the time between two glances, of which each
/// is to look.
const POLL: Duration = Duration::from_secs(4);

/// Shortest time between two looks that notices caused. It doubles while looks follow each other closely, so that a program
/// that fights us over a rule cannot keep the node busy: each look starts some ten programs.
const SPACING: Duration = Duration::from_millis(25);
const LONGEST_SPACING: Duration = Duration::from_millis(200);

/// Looks further apart than this have nothing to do with each other.
const CALM: Duration = Duration::from_secs(1);

/// How long after a look that changed something the notices of these very changes are followed. Somebody else's may be
/// among them, but at start a node has better things to do.
const ECHO: Duration = Duration::from_millis(400);

/// What was told and looked at. Time is passed in.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<Instant>,
    spacing: Duration,
    /// The last look changed something, which is about to be told.
    echo: bool,
    /// When to look at what was told of.
    due: Option<Instant>,
}

impl Looks {
    /// Somebody changed a table that our rules are in, or we did.
    pub(super) fn note(&mut self) {
        // Without a look there is one to come.
        let Some(last) = self.last else { return };
        let at = last + if std::mem::take(&mut self.echo) { ECHO } else { self.spacing };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether to look now; `must_poll`: there are tables that report no changes.
    pub(super) fn is_due(&self, now: Instant, must_poll: impl FnOnce() -> bool) -> bool {
        let Some(last) = self.last else { return true };
        self.due.is_some_and(|due| due <= now) || (now.saturating_duration_since(last) >= POLL && must_poll())
    }

    /// When to look at what was told of.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// A look begins. Whatever happens from now on will be told.
    pub(super) fn begin(&mut self, now: Instant) {
        let is_calm = self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.spacing = if is_calm { SPACING } else { (self.spacing * 2).clamp(SPACING, LONGEST_SPACING) };
        (self.last, self.echo, self.due) = (Some(now), false, None);
    }

    /// The look changed something.
    pub(super) fn wrote(&mut self) {
        self.echo = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_notice_is_followed_at_once_and_a_fight_five_times_a_second() {
        let mut looks = Looks::default();
        let mut now = Instant::now();
        assert!(looks.is_due(now, || false), "nothing is known yet");
        looks.begin(now);
        assert!(!looks.is_due(now + CALM, || false) && looks.next().is_none());
        now += CALM;
        looks.note();
        assert!(looks.is_due(now, || false));
        for millis in [25, 50, 100, 200, 200] {
            looks.begin(now);
            looks.note();
            let next = looks.next().unwrap();
            assert_eq!(next - now, Duration::from_millis(millis));
            assert!(!looks.is_due(now, || false) && looks.is_due(next, || false));
            now = next;
        }
        looks.begin(now + CALM);
        looks.note();
        assert_eq!(looks.next(), Some(now + CALM + SPACING), "calm again");
    }

    #[test]
    fn the_echo_of_a_repair_waits_and_the_next_notice_does_not() {
        let mut looks = Looks::default();
        let now = Instant::now();
        looks.begin(now);
        looks.wrote();
        looks.note();
        assert_eq!(looks.next(), Some(now + ECHO));
        looks.note();
        assert_eq!(looks.next(), Some(now + SPACING));
    }

    #[test]
    fn tables_without_notices_are_polled() {
        let mut looks = Looks::default();
        let now = Instant::now();
        looks.begin(now);
        assert!(!looks.is_due(now + POLL, || false) && looks.is_due(now + POLL, || true));
        assert!(!looks.is_due(now + POLL / 2, || true));
    }
}
