//! Any sequence of changes of objects into the planner: what it plans bit by bit is what it plans from scratch, in any order,
//! and no endpoint is chosen that is not allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::{
    invariants::Checked,
    objects::{Event, reference},
};
use weft_proxy::model::ObjectKind;

fuzz_target!(|events: Vec<Event>| {
    let mut checked = Checked::default();
    for event in events {
        match event {
            Event::Service(seed) => checked.apply(seed.object()),
            Event::Slice(seed) => checked.apply(seed.object()),
            Event::Node(seed) => checked.apply(seed.object()),
            Event::DeleteService(name) => checked.delete(reference(ObjectKind::Service, name)),
            Event::DeleteSlice(name) => checked.delete(reference(ObjectKind::EndpointSlice, name)),
            Event::DeleteNode(name) => checked.delete(reference(ObjectKind::Node, name)),
            Event::Plan => checked.plan(),
            Event::List => checked.list(),
        }
    }
    checked.finish(true);
});
