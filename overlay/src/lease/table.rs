//! All leases as one server told them, kept up to date change by change.

use std::collections::BTreeMap;

use super::{Lease, LeaseSnapshot, RejectedLease, Subnets};

/// Why an object is not a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    /// Its subnets, if they are known all the same.
    pub(crate) subnets: Option<Subnets>,
}

/// Leases by object: the key in etcd, the name of the Node.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    /// The last one that could be read: a node does not go because somebody broke its value.
    lease: Option<Lease>,
    rejection: Option<Rejection>,
}

impl LeaseTable {
    /// Notes what an object says now; true if that is news.
    pub(crate) fn set(&mut self, object: &str, read: Result<Lease, Rejection>) -> bool {
        let old = self.entries.remove(object).unwrap_or_default();
        let new = match read {
            Ok(lease) => Entry { lease: Some(lease), rejection: None },
            Err(rejection) => Entry { lease: old.lease.clone(), rejection: Some(rejection) },
        };
        let changed = new != old;
        self.entries.insert(object.to_owned(), new);
        changed
    }

    /// Notes that an object is gone; true if it was there.
    pub(crate) fn remove(&mut self, object: &str) -> bool {
        self.entries.remove(object).is_some()
    }

    /// Keeps only the objects of which `is_there` says so; true if one was not.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|object, _| is_there(object));
        self.entries.len() != before
    }

    /// Takes a full list: what is not in it is gone.
    pub(crate) fn replace(&mut self, list: impl IntoIterator<Item = (String, Result<Lease, Rejection>)>) {
        let mut last = std::mem::take(self);
        for (object, read) in list {
            if let Some(entry) = last.entries.remove(&object) {
                self.entries.insert(object.clone(), entry);
            }
            self.set(&object, read);
        }
    }

    /// Everything, in the order snapshots have.
    pub(crate) fn snapshot(&self) -> LeaseSnapshot {
        let mut snapshot = LeaseSnapshot::default();
        for (object, entry) in &self.entries {
            snapshot.leases.extend(entry.lease.clone());
            snapshot.rejected.extend(entry.rejection.as_ref().map(|rejection| RejectedLease {
                object: object.clone(),
                reason: rejection.reason.clone(),
                // With an older value known, its subnets are decided.
                subnets: rejection.subnets.filter(|_| entry.lease.is_none()),
            }));
        }
        snapshot.leases.sort_by_key(|lease| lease.subnets);
        snapshot.rejected.sort();
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseAttributes;

    fn lease(key: &str, address: &str) -> Lease {
        let json = format!(r#"{{"PublicIP":"{address}"}}"#);
        Lease { subnets: key.parse().unwrap(), attributes: LeaseAttributes::from_json(&json).unwrap() }
    }

    fn broken(key: &str) -> Rejection {
        Rejection { reason: "broken".into(), subnets: key.parse().ok() }
    }

    #[test]
    fn a_broken_value_does_not_remove_a_node() {
        let mut table = LeaseTable::default();
        let known = lease("10.5.1.0-24", "192.0.2.1");
        table.replace([("a".into(), Ok(known.clone())), ("b".into(), Err(broken("10.5.2.0-24")))]);
        assert!(table.set("a", Err(broken("10.5.1.0-24"))));
        assert!(!table.set("a", Err(broken("10.5.1.0-24"))), "no news");
        let snapshot = table.snapshot();
        assert_eq!(snapshot.leases, std::slice::from_ref(&known));
        let rejected: Vec<_> = snapshot.rejected.iter().map(|r| (r.object.as_str(), r.subnets)).collect();
        assert_eq!(rejected, [("a", None), ("b", "10.5.2.0-24".parse().ok())]);

        // Nor does a new full list that still has the broken value; one without the object does.
        table.replace([("a".into(), Err(broken("10.5.1.0-24")))]);
        assert_eq!(table.snapshot().leases, [known]);
        table.replace([]);
        assert_eq!(table.snapshot(), LeaseSnapshot::default());
    }

    #[test]
    fn a_change_of_either_family_is_news() {
        let mut table = LeaseTable::default();
        let one = lease("10.5.1.0-24", "192.0.2.1");
        assert!(table.set("a", Ok(one.clone())));
        assert!(!table.set("a", Ok(one)));
        assert!(table.set("a", Ok(lease("10.5.1.0-24", "192.0.2.2"))), "flannel-defects.md B.1");
        assert!(table.remove("a"));
        assert!(!table.remove("a"));
    }
}
