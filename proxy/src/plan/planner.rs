//! The planner: keeps the objects, knows what is dirty, owns the desired state. `answers` is what it tells of them.

mod answers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

pub use answers::Counts;

use super::{
    PlanKey, PlannerConfig, desired::DesiredState, health_checks::HealthChecks, service::plan_service, slices::Slices,
    udp::UdpEndpoints,
};
use crate::model::{
    Check, EndpointSlice, IpFamily, NodeIps, NodeTopology, ObjectError, ObjectKind, ObjectRef, PodCidrs, Problem,
    Service, ServiceName, Warning,
    api::{self, Object},
};

/// One event of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new, or now reads like this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
}

/// What a full list brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Parts of objects that are left out.
    pub warnings: Vec<Warning>,
    /// Objects that are left out, or stay as they were.
    pub rejected: Vec<ObjectError>,
}

/// A change of endpoints that an EndpointSlice told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointsChange {
    /// The family of the slice.
    pub family: IpFamily,
    /// When it happened in the cluster, by the clock of who wrote the slice.
    pub at: SystemTime,
}

/// Turns Services, EndpointSlices and this Node into the desired state of the data plane.
///
/// Events only mark Services dirty; [`take_changes`](Self::take_changes) plans those again. The outcome does not depend
/// on the order of events, except that a rejected object leaves the last good state of it in force.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    topology: NodeTopology,
    /// In boxes, for a third of a hash map is empty.
    services: HashMap<ServiceName, Box<Service>>,
    slices: Slices,
    rejected: BTreeMap<ObjectRef, ObjectError>,
    warnings: BTreeMap<ObjectRef, Vec<Warning>>,
    dirty: BTreeSet<ServiceName>,
    /// Of the dirty Services those with other slices than before.
    slices_dirty: BTreeSet<ServiceName>,
    endpoints_changes: Vec<EndpointsChange>,
    state: DesiredState,
    udp: UdpEndpoints,
    health_checks: HealthChecks,
}

impl Planner {
    /// A planner that knows no object yet.
    pub fn new(config: PlannerConfig) -> Self {
        let ips = NodeIps::default().bound_to(config.bind_address);
        Self {
            config,
            topology: NodeTopology { ips, ..NodeTopology::default() },
            services: HashMap::new(),
            slices: Slices::default(),
            rejected: BTreeMap::new(),
            warnings: BTreeMap::new(),
            dirty: BTreeSet::new(),
            slices_dirty: BTreeSet::new(),
            endpoints_changes: Vec::new(),
            state: DesiredState::default(),
            udp: UdpEndpoints::default(),
            health_checks: HealthChecks::default(),
        }
    }

    /// Takes one event. Returns what part of the object is left out, unless the last event of this object said the same.
    ///
    /// # Errors
    /// The object cannot be used; its last good state stays. It counts as rejected until it is repaired or deleted.
    pub fn apply(&mut self, change: Change) -> Result<Vec<Warning>, ObjectError> {
        match change {
            Change::Apply(object) => self.put(object.reference(), &object),
            Change::Delete(reference) => {
                self.remove(&reference);
                Ok(Vec::new())
            }
        }
    }

    /// Takes a full list of one kind: what is not in it is gone. Objects of other kinds are taken like events.
    pub fn replace(&mut self, kind: ObjectKind, objects: impl IntoIterator<Item = Object>) -> Replaced {
        let mut replaced = Replaced::default();
        let mut present = HashSet::new();
        // Freed together, at the end: what is kept of one would else take the place of the one before, and a large list would never be
        // given back to the kernel for the sake of small pieces between.
        let objects: Vec<Object> = objects.into_iter().collect();
        for object in &objects {
            let reference = object.reference();
            present.insert(reference.clone());
            match self.put(reference, object) {
                Ok(warnings) => replaced.warnings.extend(warnings),
                Err(error) => replaced.rejected.push(error),
            }
        }
        for gone in self.known(kind).into_iter().filter(|reference| !present.contains(reference)) {
            self.remove(&gone);
        }
        replaced
    }

    /// Plans the dirty Services again and returns the keys whose plan is added, changed or removed, sorted.
    pub fn take_changes(&mut self) -> Vec<PlanKey> {
        let mut planned = Vec::with_capacity(self.dirty.len());
        let slices_dirty = std::mem::take(&mut self.slices_dirty);
        for name in std::mem::take(&mut self.dirty) {
            let service = self.services.get(&name).map(|service| &**service);
            let plan = |service| plan_service(service, &self.slices.of(&name), &self.topology, &self.config);
            let plan = service.map(plan).unwrap_or_default();
            self.udp.replace(&name, plan.udp, slices_dirty.contains(&name));
            self.health_checks.set(&name, plan.health_check);
            planned.push((name, plan.ports));
        }
        self.state.replace(planned)
    }

    /// Changes of endpoints since the last call, of slices that say when it was (section 17). A slice that is told again as it
    /// was, or goes, is none.
    pub fn take_endpoints_changes(&mut self) -> Vec<EndpointsChange> {
        std::mem::take(&mut self.endpoints_changes)
    }

    /// Sets the addresses NodePorts are accepted at; true if they differ from before.
    pub fn set_node_port_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let differ = self.state.desired.node_port_addresses != addresses;
        self.state.desired.node_port_addresses = addresses;
        differ
    }

    /// Services whose health check is new, other than before or gone, since the last call.
    pub fn take_health_check_changes(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.health_checks.changed)
    }

    /// UDP Service ports whose EndpointSlices changed, or that came after them, since the last call: when to look for stale conntrack entries (10.1).
    pub fn take_udp_changes(&mut self) -> BTreeSet<PlanKey> {
        self.udp.take_slices_changed()
    }

    /// Endpoints that no UDP Service port has any more, where it has others in their stead, since the last call: whose
    /// connected sockets to close.
    pub fn take_gone_udp_endpoints(&mut self) -> BTreeSet<SocketAddr> {
        self.udp.take_gone()
    }

    fn put(&mut self, reference: ObjectRef, object: &Object) -> Result<Vec<Warning>, ObjectError> {
        let mut check = Check::new(reference.clone());
        let outcome = match object {
            Object::Service(service) => self.put_service(service, &mut check),
            Object::EndpointSlice(slice) => self.put_slice(slice, &mut check),
            Object::Node(node) => self.put_node(node, &mut check),
            Object::Malformed(malformed) => Err(check.refuse(malformed.field, Problem::malformed(&malformed.problem))),
        };
        if let Err(error) = outcome {
            self.rejected.insert(reference, error.clone());
            return Err(error);
        }
        self.rejected.remove(&reference);
        Ok(self.news(reference, check.into_warnings()))
    }

    fn put_service(&mut self, object: &api::Service, check: &mut Check) -> Result<(), ObjectError> {
        let service = Service::check(object, check)?;
        self.set_service(check.object(), service);
        Ok(())
    }

    fn put_slice(&mut self, object: &api::EndpointSlice, check: &mut Check) -> Result<(), ObjectError> {
        let slice = EndpointSlice::check(object, &self.config.node_name, check)?;
        let change =
            slice.as_ref().zip(object.changed_at).map(|(slice, at)| EndpointsChange { family: slice.family, at });
        if self.set_slice(check.object(), slice) {
            self.endpoints_changes.extend(change);
        }
        Ok(())
    }

    fn put_node(&mut self, object: &api::Node, check: &mut Check) -> Result<(), ObjectError> {
        let mut topology = NodeTopology::check(object, check)?;
        if check.object().name != self.config.node_name {
            return Ok(());
        }
        // A Node that was made anew has no addresses for a while. To forget them would open NodePorts on all (6.3).
        if topology.ips == NodeIps::default() {
            topology.ips = self.topology.ips;
        }
        if topology.pod_cidrs == PodCidrs::default() {
            topology.pod_cidrs = self.topology.pod_cidrs;
        }
        topology.ips = topology.ips.bound_to(self.config.bind_address);
        let moved = self.topology.zone != topology.zone;
        if self.topology == topology {
            return Ok(());
        }
        self.topology = topology;
        // Addresses matter to source ranges only (9.7).
        let touched = self.services.iter().filter(|(_, service)| moved || !service.source_ranges.is_empty());
        self.dirty.extend(touched.map(|(name, _)| name.clone()));
        Ok(())
    }

    fn remove(&mut self, reference: &ObjectRef) {
        self.rejected.remove(reference);
        self.warnings.remove(reference);
        match reference.kind {
            ObjectKind::Service => self.set_service(reference, None),
            ObjectKind::EndpointSlice => _ = self.set_slice(reference, None),
            // As in kube-proxy the zone seen last stays: a Node object that is made anew must not move traffic twice.
            ObjectKind::Node => {}
        }
    }

    /// Whether it is another than before.
    fn set_slice(&mut self, reference: &ObjectRef, slice: Option<EndpointSlice>) -> bool {
        let touched = self.slices.set(reference, slice);
        let is_other = !touched.is_empty();
        for service in touched {
            self.slices_dirty.insert(service.clone());
            self.dirty.insert(service);
        }
        is_other
    }

    fn set_service(&mut self, reference: &ObjectRef, service: Option<Service>) {
        let name = ServiceName { namespace: reference.namespace.clone(), name: reference.name.clone() };
        if self.services.get(&name).map(|known| &**known) == service.as_ref() {
            return;
        }
        match service {
            Some(service) => self.services.insert(name.clone(), Box::new(service)),
            None => self.services.remove(&name),
        };
        self.dirty.insert(name);
    }

    /// Remembers what is left out of an object; returns it if the object has not been reported with it yet.
    fn news(&mut self, reference: ObjectRef, warnings: Vec<Warning>) -> Vec<Warning> {
        if warnings.is_empty() {
            self.warnings.remove(&reference);
            return warnings;
        }
        match self.warnings.insert(reference, warnings.clone()) {
            Some(before) if before == warnings => Vec::new(),
            _ => warnings,
        }
    }

    /// Everything of one kind that a full list may show to be gone.
    fn known(&self, kind: ObjectKind) -> Vec<ObjectRef> {
        let mut known: Vec<_> = self.rejected.keys().chain(self.warnings.keys()).cloned().collect();
        known.extend(self.slices.references().cloned());
        known.extend(self.services.keys().map(|service| ObjectRef {
            kind: ObjectKind::Service,
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        }));
        known.retain(|reference| reference.kind == kind);
        known
    }
}
