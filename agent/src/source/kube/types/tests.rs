use kube::api::{ObjectList, WatchEvent};

use super::*;

fn read(service: &str) -> Object {
    serde_json::from_str::<WatchedService>(service).unwrap().into()
}

fn malformed(object: Object) -> api::Malformed {
    let Object::Malformed(malformed) = object else { panic!("{object:?}") };
    *malformed
}

#[test]
fn a_malformed_object_is_still_an_object() {
    let Object::Service(service) = read(r#"{"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.1"}}"#) else {
        panic!("not read")
    };
    assert_eq!(service.metadata.name, "web");
    let wrong = read(r#"{"metadata": {"name": "web", "namespace": "a"}, "spec": {"ports": "eighty"}}"#);
    assert_eq!(wrong.reference().to_string(), "Service a/web");
    let wrong = malformed(wrong);
    assert_eq!(wrong.field, "spec");
    assert!(wrong.problem.contains("eighty"), "{}", wrong.problem);
}

#[test]
fn a_malformed_object_costs_a_list_only_itself() {
    let list = r#"{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "9"}, "items": [
        {"metadata": {"name": "a-x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "zone": "z"}], "ports": null},
        {"metadata": {"name": "b-x"}, "addressType": "IPv4", "endpoints": [{"addresses": {"no": ["list", "]"]}}], "ports": []},
        {"metadata": {"name": "c-x"}, "addressType": 4, "endpoints": null},
        {"metadata": {"name": "d-x"}}
    ]}"#;
    let list: ObjectList<WatchedEndpointSlice> = serde_json::from_str(list).unwrap();
    let objects: Vec<Object> = list.items.into_iter().map(Object::from).collect();
    let [a, b, c, d] = <[Object; 4]>::try_from(objects).unwrap();
    let Object::EndpointSlice(a) = a else { panic!("{a:?}") };
    assert_eq!((a.endpoints[0].addresses[0].as_str(), a.address_type.as_str()), ("10.0.0.1", "IPv4"));
    assert_eq!((malformed(b).field, malformed(c).field), ("endpoints", "addressType"));
    let Object::EndpointSlice(d) = d else { panic!("{d:?}") };
    assert!(d.endpoints.is_empty());
}

#[test]
fn events_are_read_as_a_watch_sends_them() {
    let event =
        r#"{"type": "MODIFIED", "object": {"kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": 7}}}"#;
    let Ok(WatchEvent::Modified(node)) = serde_json::from_str::<WatchEvent<WatchedNode>>(event) else {
        panic!("not read")
    };
    assert_eq!(malformed(node.into()).field, "status");
}

#[test]
fn section_17_a_slice_says_when_its_endpoints_changed() {
    let slice = |annotation: &str| {
        let annotations = format!(r#"{{"endpoints.kubernetes.io/last-change-trigger-time": "{annotation}"}}"#);
        let slice =
            format!(r#"{{"metadata": {{"name": "web-1", "annotations": {annotations}}}, "addressType": "IPv4"}}"#);
        match serde_json::from_str::<WatchedEndpointSlice>(&slice).unwrap().into() {
            Object::EndpointSlice(slice) => slice.changed_at,
            other => panic!("{other:?}"),
        }
    };
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
    assert_eq!(slice("1970-01-01T00:00:01.5Z"), Some(at));
    assert_eq!(slice("yesterday"), None);
}
