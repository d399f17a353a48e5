//! How long to wait before the API server is asked again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
/// kube-proxy waits up to 30 s; then it can take so long until an API server that is back is heard.
const LONGEST: Duration = Duration::from_secs(10);
/// Without a failure for so long, the next one is the first again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Doubles the pause with every failure, give or take half, so that the agents of a cluster do not all ask at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    last_failure: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, last_failure: None }
    }
}

impl Backoff {
    /// Notes a failure, and says how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        if self.last_failure.is_some_and(|last| last.elapsed() > FORGIVEN_AFTER) {
            self.next = FIRST;
        }
        self.last_failure = Some(Instant::now());
        let pause = self.next.mul_f64(0.5 + fastrand::f64());
        self.next = (self.next * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_start_over_after_a_good_time() {
        let mut backoff = Backoff::default();
        assert!(backoff.failed() <= FIRST * 3 / 2);
        for _ in 0..10 {
            backoff.failed();
        }
        assert!((LONGEST / 2..=LONGEST * 3 / 2).contains(&backoff.failed()));
        tokio::time::advance(FORGIVEN_AFTER + Duration::from_secs(1)).await;
        assert!(backoff.failed() <= FIRST * 3 / 2);
    }
}
