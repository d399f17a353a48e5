//! Any text as manifests: reading, checking and planning them must not panic, and what is planned must make sense.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::{
    model::api::Object,
    plan::{Change, Outcome, Planner, PlannerConfig},
};

fuzz_target!(|text: &str| {
    let mut planner = Planner::new(PlannerConfig::new("n1"));
    for document in text.split("\n---") {
        let Ok(object) = serde_saphyr::from_str::<Object>(document) else { continue };
        // Refusing an object is fine.
        let _ = planner.apply(Change::Apply(object));
    }
    let changed = planner.take_changes();
    assert!(planner.take_changes().is_empty(), "nothing changed, and still it is planned again");
    for (key, plan) in planner.ports() {
        assert!(changed.contains(key), "{key} is planned without having changed");
        for outcome in [&plan.internal, &plan.external, &plan.external_from_node] {
            let Outcome::Endpoints(endpoints) = outcome else { continue };
            assert!(!endpoints.is_empty(), "{key} goes to no endpoint instead of being refused");
            assert!(endpoints.is_sorted(), "{key}: endpoints are not in order");
        }
    }
});
