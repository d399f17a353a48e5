//! What has to be true of a planner, whatever objects it has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_proxy::{
    model::{
        IpFamily, ObjectKind, ObjectRef,
        api::{Endpoint, Object},
    },
    plan::{Change, Frontend, Outcome, Planner, PlannerConfig, ServicePortPlan},
};

use super::objects::NODE;

/// A planner, and what it should know.
pub struct Checked {
    planner: Planner,
    /// The last good state of each object.
    objects: BTreeMap<ObjectRef, Object>,
    /// What the data planes have been told so far.
    told: BTreeMap<weft_proxy::plan::PlanKey, std::sync::Arc<ServicePortPlan>>,
    /// States of this Node seen. Some things of a Node stay when the next state leaves them out.
    nodes: usize,
}

impl Default for Checked {
    fn default() -> Self {
        Self { planner: planner(), objects: BTreeMap::new(), told: BTreeMap::new(), nodes: 0 }
    }
}

fn planner() -> Planner {
    Planner::new(PlannerConfig::new(NODE))
}

impl Checked {
    /// An object is new or changed; refusing it is fine.
    pub fn apply(&mut self, object: Object) {
        let reference = object.reference();
        if self.planner.apply(Change::Apply(object.clone())).is_ok() {
            self.nodes += usize::from(reference.kind == ObjectKind::Node && &*reference.name == NODE);
            self.objects.insert(reference, object);
        }
    }

    /// An object is gone. A Node stays as it was last seen.
    pub fn delete(&mut self, reference: ObjectRef) {
        if reference.kind != ObjectKind::Node {
            self.objects.remove(&reference);
        }
        let _ = self.planner.apply(Change::Delete(reference));
    }

    /// The source lists what there is. Objects whose last state was refused are not touched by that, so they are listed as
    /// they were last accepted: nothing changes.
    pub fn list(&mut self) {
        self.plan();
        for kind in [ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node] {
            let list = self.objects.values().filter(|object| object.reference().kind == kind).cloned();
            let replaced = self.planner.replace(kind, list);
            assert!(replaced.rejected.is_empty(), "refused what was accepted: {:?}", replaced.rejected);
        }
        assert_eq!(self.planner.take_changes(), [], "nothing changed, and still something is planned anew");
    }

    /// The data planes take what has changed: exactly that must be named.
    pub fn plan(&mut self) {
        let changes = self.planner.take_changes();
        assert!(changes.is_sorted_by(|a, b| a < b), "changes are not in order: {changes:?}");
        for key in changes {
            let now = self.planner.ports().get(&key).cloned();
            let before = match now.clone() {
                Some(plan) => self.told.insert(key.clone(), plan),
                None => self.told.remove(&key),
            };
            assert_ne!(before, now, "{key} is named without a change");
        }
        assert_eq!(&self.told, self.planner.ports(), "a change is not named");
        assert_eq!(self.planner.take_changes(), []);
    }

    /// To be called at the end: plans from scratch, in several orders, are the same, and every plan makes sense.
    pub fn finish(mut self, nodes_are_whole: bool) {
        self.plan();
        for plan in self.planner.ports().values() {
            check_plan(plan, &self.objects);
            // All of a Service port's frontends may be another's.
            let lost = || self.planner.contested().any(|(loser, ..)| *loser == plan.key);
            assert!(!plan.frontends.is_empty() || lost(), "{} has no frontend", plan.key);
        }
        check_frontends(&self.planner);
        if !nodes_are_whole && self.nodes > 1 {
            return;
        }
        let forwards = from_scratch(self.objects.values());
        let backwards = from_scratch(self.objects.values().rev());
        for fresh in [forwards, backwards] {
            assert_eq!(self.planner.desired(), fresh.desired());
            assert_eq!(beside(&self.planner), beside(&fresh));
        }
    }
}

fn from_scratch<'a>(objects: impl Iterator<Item = &'a Object>) -> Planner {
    let mut planner = planner();
    for object in objects {
        let result = planner.apply(Change::Apply(object.clone()));
        assert!(result.is_ok(), "refused what was accepted: {result:?}");
    }
    planner.take_changes();
    planner
}

/// What the planner knows beside the desired state.
fn beside(planner: &Planner) -> Vec<String> {
    let mut shown: Vec<_> = planner.health_checks().values().map(|check| format!("{check:?}")).collect();
    for family in [IpFamily::V4, IpFamily::V6] {
        shown.extend(planner.udp_flows(family).map(|flows| format!("{flows:?}")));
        shown.push(format!("{:?}", planner.no_local_endpoints(family)));
    }
    shown
}

/// No frontend is in two plans.
fn check_frontends(planner: &Planner) {
    let mut taken = BTreeSet::new();
    for plan in planner.ports().values() {
        for frontend in &plan.frontends {
            let family = matches!(frontend, Frontend::NodePort(_)).then(|| plan.key.family.to_string());
            let place = (frontend.address(), plan.frontends_port(frontend), family, plan.key.port.protocol.to_string());
            assert!(taken.insert(place), "{frontend:?} of {} is another's too", plan.key);
        }
    }
}

/// The port of a NodePort, of which there is no address.
trait FrontendsPort {
    fn frontends_port(&self, frontend: &Frontend) -> u16;
}

impl FrontendsPort for ServicePortPlan {
    fn frontends_port(&self, frontend: &Frontend) -> u16 {
        match frontend {
            Frontend::NodePort(port) => *port,
            other => other.address().map_or(0, |address| address.port()),
        }
    }
}

/// Compares a plan with the objects, by the plainest reading of the rules.
fn check_plan(plan: &ServicePortPlan, objects: &BTreeMap<ObjectRef, Object>) {
    let key = &plan.key;
    assert!(plan.frontends.is_sorted(), "frontends of {key} are not in order: {:?}", plan.frontends);
    let entries: Vec<_> = entries(plan, objects).collect();
    for outcome in [&plan.internal, &plan.external, &plan.external_from_node] {
        if let Outcome::Endpoints(endpoints) = outcome {
            assert!(!endpoints.is_empty(), "{key} leads to no endpoint instead of being refused");
            assert!(
                endpoints.is_sorted_by(|a, b| (a.address, a.port) < (b.address, b.port)),
                "endpoints of {key} are not in order: {endpoints:?}"
            );
        }
        for chosen in outcome.endpoints() {
            let allowed = entries.iter().any(|(entry, address, port)| {
                let conditions = entry.conditions;
                let last_resort = conditions.serving != Some(false) && conditions.terminating == Some(true);
                *address == chosen.address
                    && *port == i64::from(chosen.port)
                    && (entry.node_name == NODE) == chosen.local
                    && (conditions.ready != Some(false) || last_resort)
            });
            assert!(allowed, "{chosen:?} is not allowed for {key}");
        }
    }
}

/// Entries of the slices that belong to a Service port, with address and port.
fn entries<'a>(
    plan: &'a ServicePortPlan,
    objects: &'a BTreeMap<ObjectRef, Object>,
) -> impl Iterator<Item = (&'a Endpoint, IpAddr, i64)> {
    let key = &plan.key;
    let slices = objects.iter().filter_map(move |(reference, object)| match object {
        Object::EndpointSlice(slice) if reference.namespace == key.port.service.namespace => {
            let service = slice.metadata.labels.get("kubernetes.io/service-name")?;
            (**service == *key.port.service.name).then_some(slice)
        }
        _ => None,
    });
    slices.flat_map(move |slice| {
        let matches = move |name: &str, protocol: &str| {
            let protocol = if protocol.is_empty() { "TCP" } else { protocol };
            *name == *key.port.port && protocol == key.port.protocol.to_string()
        };
        let ports = slice.ports.iter().filter(move |port| matches(&port.name, &port.protocol));
        ports.flat_map(|port| {
            slice.endpoints.iter().filter_map(|entry| Some((entry, address(entry.addresses.first()?)?, port.port)))
        })
    })
}

/// Leading zeros are read as kube-proxy reads them (1.12).
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    Some(IpAddr::from(<[u8; 4]>::try_from(parts?).ok()?))
}
