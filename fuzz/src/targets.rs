//! What is done with an input. `fuzz_targets/` hands libFuzzer's to it, `tests/tests/fuzz.rs` random ones.

use arbitrary::{Arbitrary, Unstructured};
use weft_cni::input::{cni_args as read_cni_args, network_configuration, reservation, subnet_file};
use weft_proxy::model::ObjectKind;

use super::{
    invariants::Checked,
    objects::{Event, reference},
};

/// Any sequence of changes of objects into the planner: what it plans bit by bit is what it plans from scratch, in any order,
/// and no endpoint is chosen that is not allowed.
pub fn planner_events(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut checked = Checked::default();
    while !input.is_empty() {
        match input.arbitrary().expect("what is missing in the end is read as 0") {
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
}

/// Any text as manifests: reading, checking and planning them must not panic, and what is planned must make sense.
pub fn manifests(input: &[u8]) {
    let Some(text) = read::<&str>(input) else { return };
    let mut checked = Checked::default();
    for document in text.split("\n---") {
        if let Ok(object) = serde_saphyr::from_str(document) {
            checked.apply(object);
        }
    }
    checked.finish(false);
}

/// Any bytes as JSON of the API, one object a line: the same as with manifests, and faster.
pub fn api_json(input: &[u8]) {
    let mut checked = Checked::default();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(object) = serde_json::from_slice(line) {
            checked.apply(object);
        }
    }
    checked.finish(false);
}

/// Any bytes as a network configuration on standard input of `weft-cni`: refusing is fine, a panic is not.
pub fn cni_config(input: &[u8]) {
    let _ = network_configuration(input);
}

/// Any text as `CNI_ARGS`, and as flannel's `subnet.env`, which is of the same make.
pub fn cni_args(input: &[u8]) {
    let Some(text) = read::<&str>(input) else { return };
    let _ = read_cni_args(text);
    let _ = subnet_file(text);
}

/// Any name and content as a file in the directory of addresses. Whoever a file is said to be reserved for must be
/// said to hold it again when that is written down as `weft-cni` writes it.
pub fn cni_store(input: &[u8]) {
    let Some((name, content)) = read::<(&str, &str)>(input) else { return };
    let Some((address, id, ifname)) = reservation(name, content) else { return };
    let Some(ifname) = ifname else { return };
    let again = reservation(&address.to_string(), &format!("{id}\r\n{ifname}"));
    assert_eq!(again, Some((address, id, Some(ifname))));
}

fn read<'a, T: Arbitrary<'a>>(input: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(input)).ok()
}
