//! Tells the lease manager whether this node's pod network works, when that changes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use crate::{
    lease::{LeaseManager, NetworkState},
    status::OverlayStatus,
};

/// How long the network must be down before that is told: what is repaired by then is nobody's business, and a restarted
/// agent finds a network that works.
const DOWN_AFTER: Duration = Duration::from_secs(10);

/// How soon a report that failed is tried again.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// Reports until the sender of the status is gone.
pub(crate) async fn follow(
    mut status: watch::Receiver<OverlayStatus>,
    leases: Arc<dyn LeaseManager>,
    node_name: String,
) {
    let mut reported = None;
    let mut again = AGAIN_FIRST;
    loop {
        let up = match status.wait_for(|status| Some(status.ready) != reported).await {
            Ok(status) => status.ready,
            Err(_) => return,
        };
        if !up && timeout(DOWN_AFTER, status.wait_for(|status| status.ready)).await.is_ok() {
            continue;
        }
        let network = if up {
            NetworkState::Up
        } else {
            let error = status.borrow().error.clone();
            NetworkState::Down { reason: error.unwrap_or_else(|| "the pod network is not up yet".into()) }
        };
        match leases.report_network(&node_name, &network).await {
            Ok(()) => {
                info!(?network, "reported");
                reported = Some(up);
                again = AGAIN_FIRST;
            }
            Err(error) => {
                warn!(%error, "the state of the network could not be reported");
                tokio::time::sleep(again).await;
                again = (again * 2).min(AGAIN_LONGEST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::lease::{Lease, LeaseFuture, LeaseRequest, LeaseSnapshot};

    /// Notes reports; the first one fails.
    #[derive(Default)]
    struct Noted(Mutex<(bool, Vec<NetworkState>)>);

    impl LeaseManager for Noted {
        fn describe(&self) -> String {
            unreachable!()
        }
        fn own<'a>(&'a self, _: &'a LeaseRequest) -> LeaseFuture<'a, Option<Lease>> {
            unreachable!()
        }
        fn acquire<'a>(&'a self, _: &'a LeaseRequest) -> LeaseFuture<'a, Lease> {
            unreachable!()
        }
        fn watch(&self) -> LeaseFuture<'_, watch::Receiver<Option<Arc<LeaseSnapshot>>>> {
            unreachable!()
        }
        fn report_network<'a>(&'a self, _: &'a str, network: &'a NetworkState) -> LeaseFuture<'a, ()> {
            let mut noted = self.0.lock().unwrap();
            let first = !std::mem::replace(&mut noted.0, true);
            if !first {
                noted.1.push(network.clone());
            }
            Box::pin(async move { if first { Err(crate::lease::LeaseError::LostRaces { races: 1 }) } else { Ok(()) } })
        }
        fn release<'a>(&'a self, _: &'a crate::lease::LeaseHolder) -> LeaseFuture<'a, ()> {
            unreachable!()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_reported_and_a_short_one_is_not() {
        let (status, receiver) = watch::channel(OverlayStatus::default());
        let noted = Arc::new(Noted::default());
        tokio::spawn(follow(receiver, Arc::clone(&noted) as Arc<dyn LeaseManager>, "n1".into()));
        let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let reports = || noted.0.lock().unwrap().1.clone();
        let ready = |ready| {
            status.send_modify(|status| {
                status.ready = ready;
                status.error = (!ready).then(|| "the device is gone".into());
            });
        };
        seconds(9).await;
        ready(true);
        seconds(2).await;
        assert_eq!(reports(), [NetworkState::Up]);
        ready(false);
        seconds(9).await;
        ready(true);
        seconds(60).await;
        assert_eq!(reports(), [NetworkState::Up]);
        ready(false);
        seconds(11).await;
        let down = NetworkState::Down { reason: "the device is gone".into() };
        assert_eq!(reports(), [NetworkState::Up, down.clone()]);
        ready(true);
        seconds(1).await;
        assert_eq!(reports(), [NetworkState::Up, down, NetworkState::Up]);
    }
}
