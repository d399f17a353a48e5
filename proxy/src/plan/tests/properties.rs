//! Invariants over random objects and random events.

mod random_objects;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use random_objects::{SERVICE_LABEL, node, nodes, services, slices};

use super::{Change, Outcome, Planner, PlannerConfig, ServicePortPlan};
use crate::{
    model::{
        IpFamily, ObjectKind, ObjectRef,
        api::{Endpoint, Object},
    },
    plan::PlanKey,
};

/// What the planner knows beside the desired state, as text.
fn beside(planner: &Planner) -> Vec<String> {
    let mut shown: Vec<_> = planner.health_checks().values().map(|check| format!("{check:?}")).collect();
    for family in [IpFamily::V4, IpFamily::V6] {
        shown.extend(planner.udp_flows(family).map(|flows| format!("{flows:?}")));
        shown.push(format!("{:?}", planner.no_local_endpoints(family)));
    }
    shown
}

fn events() -> impl Strategy<Value = Vec<Change>> {
    let objects = || prop_oneof![3 => services(), 5 => slices(), 1 => nodes()];
    let event = prop_oneof![
        4 => objects().prop_map(Change::Apply),
        1 => objects().prop_map(|object| Change::Delete(object.reference())),
    ];
    vec(event, 0..40)
}

fn planner() -> Planner {
    Planner::new(PlannerConfig::new("n1"))
}

/// Plans these objects from nothing.
fn from_scratch<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Planner {
    let mut planner = planner();
    for object in objects {
        planner.apply(Change::Apply(object.clone())).expect("object was accepted before");
    }
    planner.take_changes();
    planner
}

/// What is in force after an event: the last good state of each object; this Node for good once seen.
fn remember(objects: &mut BTreeMap<ObjectRef, Object>, event: Change, accepted: bool) {
    match event {
        Change::Apply(object) if accepted => {
            objects.insert(object.reference(), object);
        }
        Change::Delete(reference) if reference.kind != ObjectKind::Node => {
            objects.remove(&reference);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn plan_after_deltas_equals_plan_from_scratch(events in events(), pauses in vec(prop::bool::ANY, 40)) {
        let mut planner = planner();
        let mut objects = BTreeMap::new();
        let mut mirror: BTreeMap<PlanKey, _> = BTreeMap::new();
        for (event, pause) in events.into_iter().zip(pauses).chain([(Change::Delete(gone()), true)]) {
            let accepted = planner.apply(event.clone()).is_ok();
            remember(&mut objects, event, accepted);
            if !pause {
                continue;
            }
            // Every key that is named differs, and the named ones are all there are.
            let changes = planner.take_changes();
            prop_assert!(changes.is_sorted_by(|a, b| a < b));
            for key in changes {
                let now = planner.ports().get(&key).cloned();
                let before = match now.clone() {
                    Some(plan) => mirror.insert(key.clone(), plan),
                    None => mirror.remove(&key),
                };
                prop_assert_ne!(before, now, "{} is named without a change", key);
            }
            prop_assert_eq!(&mirror, planner.ports());
            prop_assert_eq!(planner.take_changes(), []);
        }
        let fresh = from_scratch(objects.values());
        prop_assert_eq!(planner.desired(), fresh.desired());
        prop_assert_eq!(beside(&planner), beside(&fresh));
    }

    #[test]
    fn order_of_events_does_not_matter(
        (ordered, shuffled) in events().prop_map(last_good_objects).prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()))
    ) {
        let (ordered, shuffled) = (from_scratch(&ordered), from_scratch(&shuffled));
        prop_assert_eq!(ordered.desired(), shuffled.desired());
        prop_assert_eq!(beside(&ordered), beside(&shuffled));
    }

    #[test]
    fn full_lists_equal_single_events(before in events(), after in events()) {
        let mut planner = planner();
        for event in before {
            let _ = planner.apply(event);
        }
        let mut after = last_good_objects(after);
        // This Node stays as it was last seen, so the list has to say where it is.
        after.push(node("n1", "b", "192.0.2.1"));
        for kind in [ObjectKind::EndpointSlice, ObjectKind::Node, ObjectKind::Service] {
            let list = after.iter().filter(|object| object.reference().kind == kind).cloned();
            prop_assert!(planner.replace(kind, list).rejected.is_empty());
        }
        planner.take_changes();
        let fresh = from_scratch(&after);
        prop_assert_eq!(planner.desired(), fresh.desired());
        prop_assert_eq!(planner.counts(), fresh.counts());
        prop_assert_eq!(beside(&planner), beside(&fresh));
    }

    #[test]
    fn only_allowed_endpoints_are_chosen(events in events()) {
        let objects = last_good_objects(events);
        for plan in from_scratch(&objects).ports().values() {
            check_plan(plan, &objects)?;
        }
    }

    #[test]
    fn no_frontend_is_in_two_plans(events in events()) {
        let planner = from_scratch(&last_good_objects(events));
        let mut taken = BTreeSet::new();
        for plan in planner.ports().values() {
            for frontend in &plan.frontends {
                let place = frontend.address().map_or_else(|| format!("{frontend:?} {}", plan.key.family), |at| at.to_string());
                prop_assert!(taken.insert((place, plan.key.port.protocol)), "{:?} of {} is taken", frontend, plan.key);
            }
        }
    }
}

/// An object that never exists.
fn gone() -> ObjectRef {
    ObjectRef { kind: ObjectKind::Service, namespace: "none".into(), name: "none".into() }
}

fn last_good_objects(events: Vec<Change>) -> Vec<Object> {
    let mut planner = planner();
    let mut objects = BTreeMap::new();
    for event in events {
        let accepted = planner.apply(event.clone()).is_ok();
        remember(&mut objects, event, accepted);
    }
    objects.into_values().collect()
}

/// Compares a plan with the raw objects, by the plainest reading of the rules.
fn check_plan(plan: &ServicePortPlan, objects: &[Object]) -> Result<(), TestCaseError> {
    let service = objects.iter().find_map(|object| match object {
        Object::Service(service) if *service.metadata.name == *plan.key.port.service.name => Some(service),
        _ => None,
    });
    let service = service.expect("a plan has its Service");
    let raw = raw_endpoints(plan, objects);
    for outcome in [&plan.internal, &plan.external, &plan.external_from_node] {
        if let Outcome::Endpoints(endpoints) = outcome {
            prop_assert!(!endpoints.is_empty());
            prop_assert!(endpoints.is_sorted_by(|a, b| (a.address, a.port) < (b.address, b.port)));
        }
        for chosen in outcome.endpoints() {
            let allowed = raw.iter().any(|(entry, port)| {
                let conditions = entry.conditions;
                let ready = conditions.ready != Some(false);
                let last_resort = conditions.serving != Some(false) && conditions.terminating == Some(true);
                entry.addresses[0] == chosen.address.to_string()
                    && *port == i64::from(chosen.port)
                    && (entry.node_name == "n1") == chosen.local
                    && (ready || last_resort)
            });
            prop_assert!(allowed, "{:?} is not an endpoint of {}", chosen, plan.key);
        }
    }
    let all_local = |outcome: &Outcome| outcome.endpoints().iter().all(|endpoint| endpoint.local);
    if service.spec.internal_traffic_policy == "Local" {
        prop_assert!(all_local(&plan.internal));
    }
    if plan.frontends.iter().any(super::Frontend::is_external) {
        prop_assert!(plan.masquerade_external || all_local(&plan.external));
        prop_assert_ne!(&plan.external_from_node, &Outcome::Drop, "only policy Local drops, and the node bypasses it");
    }
    Ok(())
}

/// Entries and ports of all slices that belong to the plan's Service port.
fn raw_endpoints<'a>(plan: &ServicePortPlan, objects: &'a [Object]) -> Vec<(&'a Endpoint, i64)> {
    let family = if plan.key.family == IpFamily::V4 { "IPv4" } else { "IPv6" };
    let mut raw = Vec::new();
    for object in objects {
        let Object::EndpointSlice(slice) = object else { continue };
        if slice.address_type != family || *slice.metadata.labels[SERVICE_LABEL] != *plan.key.port.service.name {
            continue;
        }
        for port in &slice.ports {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            if *port.name == *plan.key.port.port && protocol == plan.key.port.protocol.to_string() {
                raw.extend(slice.endpoints.iter().map(|entry| (entry, port.port)));
            }
        }
    }
    raw
}
