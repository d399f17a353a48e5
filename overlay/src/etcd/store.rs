//! flannel's keys and values in etcd (flannel.md 5.2). Knows their form and the transactions on them, not what they mean.

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, KeyValue, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp,
    WatchOptions, WatchStream,
};

use super::{EtcdConfig, connection::Connection};
use crate::lease::{Lease, LeaseAttributes, LeaseError, Rejection, Subnets};

pub(super) struct Store {
    connection: Connection,
    /// `<prefix>/subnets/`
    subnets: String,
}

/// All leases at one revision.
pub(super) struct Listing {
    pub(super) revision: i64,
    pub(super) records: Vec<Record>,
}

/// One key below `subnets/`.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The key without the prefix.
    pub(super) name: String,
    pub(super) read: Result<Lease, Rejection>,
    /// What its key says, whatever its value is.
    pub(super) subnets: Option<Subnets>,
    /// Of the key; 0: none.
    pub(super) etcd_lease: i64,
    pub(super) mod_revision: i64,
}

impl Record {
    /// Without an etcd lease: somebody reserved the subnet, for ever.
    pub(super) fn is_permanent(&self) -> bool {
        self.etcd_lease == 0
    }
}

impl Store {
    pub(super) fn new(config: EtcdConfig) -> Self {
        let subnets = format!("{}/subnets/", config.prefix.trim_end_matches('/'));
        Self { connection: Connection::new(config), subnets }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        self.connection.config()
    }

    /// The text of `<prefix>/config`.
    pub(super) async fn net_conf(&self) -> Result<Option<String>, LeaseError> {
        let key = format!("{}/config", self.config().prefix.trim_end_matches('/'));
        let get = async |mut client: Client| client.get(key.as_str(), None).await;
        let found = self.connection.ask(&format!("read {key}"), get).await?;
        Ok(found.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    pub(super) async fn list(&self) -> Result<Listing, LeaseError> {
        let list =
            async |mut client: Client| client.get(self.subnets.as_str(), Some(GetOptions::new().with_prefix())).await;
        let found = self.connection.ask(&format!("list {}", self.subnets), list).await?;
        let records = found.kvs().iter().map(|kv| self.record(kv)).collect();
        Ok(Listing { revision: found.header().map_or(0, |header| header.revision()), records })
    }

    /// Events from `revision` on.
    pub(super) async fn watch(&self, revision: i64) -> Result<WatchStream, LeaseError> {
        let watch = async |mut client: Client| {
            let options = WatchOptions::new().with_prefix().with_start_revision(revision);
            client.watch(self.subnets.as_str(), Some(options)).await
        };
        self.connection.ask(&format!("watch {}", self.subnets), watch).await
    }

    pub(super) fn name(&self, kv: &KeyValue) -> String {
        let key = String::from_utf8_lossy(kv.key());
        key.strip_prefix(&self.subnets).unwrap_or(&key).to_owned()
    }

    pub(super) fn record(&self, kv: &KeyValue) -> Record {
        let name = self.name(kv);
        let subnets = name.parse::<Subnets>();
        let read = match &subnets {
            Ok(subnets) => LeaseAttributes::from_json(&String::from_utf8_lossy(kv.value()))
                .map(|attributes| Lease { subnets: *subnets, attributes })
                .map_err(|error| Rejection { reason: error.to_string(), subnets: Some(*subnets) }),
            Err(error) => Err(Rejection { reason: error.to_string(), subnets: None }),
        };
        Record { name, read, subnets: subnets.ok(), etcd_lease: kv.lease(), mod_revision: kv.mod_revision() }
    }

    /// A new etcd lease; its id.
    pub(super) async fn grant(&self) -> Result<i64, LeaseError> {
        let seconds = EtcdConfig::LEASE_TTL.as_secs().cast_signed();
        let grant = async |mut client: Client| client.lease_grant(seconds, None).await;
        Ok(self.connection.ask("grant a lease", grant).await?.id())
    }

    /// Best effort: a lease that nothing hangs on ends by itself.
    pub(super) async fn revoke(&self, id: i64) {
        let revoke = async |mut client: Client| client.lease_revoke(id).await;
        let _ = self.connection.ask("revoke a lease", revoke).await;
    }

    /// Writes a value over one that has not changed since; the new revision, or `None` if it has.
    pub(super) async fn rewrite(&self, old: &Record, lease: &Lease, id: i64) -> Result<Option<i64>, LeaseError> {
        let guards = vec![self.unchanged(old)];
        self.commit(&format!("renew {}", lease.subnets), guards, vec![self.put(lease, id)]).await
    }

    /// Takes subnets that nobody had in `seen`; the new revision, or `None` if somebody was faster.
    ///
    /// `instead` goes at the same moment. A key is guarded by its absence, as flannel does it. Keys that overlap without
    /// being equal (one family in common, other lengths) are no obstacle to that, so `alone` demands in addition that no
    /// other key came since `seen`.
    pub(super) async fn create(
        &self,
        lease: &Lease,
        id: i64,
        instead: Option<&Record>,
        seen: &Listing,
        alone: bool,
    ) -> Result<Option<i64>, LeaseError> {
        let mut guards = vec![Compare::version(self.key(&lease.subnets.to_string()), CompareOp::Equal, 0)];
        if alone {
            let no_later = Compare::create_revision(self.subnets.as_str(), CompareOp::Less, seen.revision + 1);
            guards.push(no_later.with_prefix());
        }
        let mut steps = vec![self.put(lease, id)];
        if let Some(old) = instead {
            guards.push(self.unchanged(old));
            steps.push(TxnOp::delete(self.key(&old.name), None));
        }
        self.commit(&format!("create {}", lease.subnets), guards, steps).await
    }

    /// Removes a record that has not changed since, and its etcd lease unless other keys hang on it.
    pub(super) async fn remove(&self, old: &Record) -> Result<(), LeaseError> {
        let steps = vec![TxnOp::delete(self.key(&old.name), None)];
        let removed = self.commit(&format!("delete {}", old.name), vec![self.unchanged(old)], steps).await?;
        if removed.is_some() && self.is_unused(old.etcd_lease).await {
            self.revoke(old.etcd_lease).await;
        }
        Ok(())
    }

    /// Best effort, as revoking.
    async fn is_unused(&self, id: i64) -> bool {
        let look = async |mut client: Client| {
            client.lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys())).await
        };
        self.connection.ask("read a lease", look).await.is_ok_and(|lease| lease.keys().is_empty())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.subnets)
    }

    fn unchanged(&self, record: &Record) -> Compare {
        Compare::mod_revision(self.key(&record.name), CompareOp::Equal, record.mod_revision)
    }

    fn put(&self, lease: &Lease, id: i64) -> TxnOp {
        let options = PutOptions::new().with_lease(id);
        TxnOp::put(self.key(&lease.subnets.to_string()), lease.attributes.to_json(), Some(options))
    }

    async fn commit(&self, doing: &str, guards: Vec<Compare>, steps: Vec<TxnOp>) -> Result<Option<i64>, LeaseError> {
        let txn = Txn::new().when(guards).and_then(steps);
        let commit = async |mut client: Client| -> Result<_, Error> { client.txn(txn.clone()).await };
        let done = self.connection.ask(doing, commit).await?;
        Ok(done.succeeded().then(|| done.header().map_or(0, |header| header.revision())))
    }
}
