//! Patches: JSON merge (RFC 7386) and strategic merge, the latter as far as Weft and `kubectl apply` send it.

use serde_json::{Map, Value};

/// Lists that are merged by a key of their elements (the API's `patchMergeKey`), by resource; all others are replaced.
const KEYED: &[(&str, &str, &str)] =
    &[("nodes", "conditions", "type"), ("services", "conditions", "type"), ("services", "ports", "port")];

/// Directives of `kubectl apply` that say what the merge does anyway.
const ORDER: &str = "$setElementOrder/";

/// Applies a JSON merge patch: `null` removes, lists are replaced.
pub(crate) fn json(object: &mut Value, patch: &Value) {
    strategic("", object, patch);
}

/// Applies a strategic merge patch to an object of `resource`.
pub(crate) fn strategic(resource: &str, object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() || fields.get("$patch").is_some_and(|directive| directive == "replace") {
        *object = Value::Object(Map::new());
    }
    let Some(target) = object.as_object_mut() else { return };
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('$')) {
        let key = KEYED.iter().find(|(of, list, _)| *of == resource && list == name).map(|(_, _, key)| *key);
        match (key, value) {
            (_, Value::Null) => {
                target.remove(name);
            }
            (Some(key), Value::Array(elements)) => {
                let order = fields.get(&format!("{ORDER}{name}")).and_then(Value::as_array);
                let list = target.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(resource, list, elements, key);
                if let (Some(order), Some(list)) = (order, list.as_array_mut()) {
                    list.sort_by_key(|element| order.iter().position(|wanted| wanted[key] == element[key]));
                }
            }
            _ => strategic(resource, target.entry(name).or_insert(Value::Null), value),
        }
    }
}

fn merge_list(resource: &str, list: &mut Value, elements: &[Value], key: &str) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else { return };
    for element in elements {
        let deleted = element["$patch"] == "delete";
        match list.iter().position(|old| old[key] == element[key]) {
            Some(index) if deleted => drop(list.remove(index)),
            Some(index) => strategic(resource, &mut list[index], element),
            None if deleted => {}
            None => list.push(element.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn merged(resource: &str, mut object: Value, patch: &Value) -> Value {
        super::strategic(resource, &mut object, patch);
        object
    }

    #[test]
    fn fields_merge_and_conditions_merge_by_type() {
        let node = json!({
            "metadata": {"annotations": {"a": "1", "b": "2"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "A", "since": 1}]},
        });
        let patch = json!({
            "metadata": {"annotations": {"b": null, "c": "3"}},
            "status": {"conditions": [{"type": "X", "status": "B"}, {"type": "Y"}], "list": [1]},
        });
        let expected = json!({
            "metadata": {"annotations": {"a": "1", "c": "3"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "B", "since": 1}, {"type": "Y"}],
                "list": [1],
            },
        });
        assert_eq!(merged("nodes", node, &patch), expected);
        let annotated = json!({"metadata": {"annotations": {"a": "1"}}});
        assert_eq!(merged("nodes", json!({}), &annotated), annotated);
    }

    #[test]
    fn ports_of_a_service_merge_by_number_as_kubectl_apply_sends_them() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}});
        let patch = json!({"spec": {
            "$setElementOrder/ports": [{"port": 82}, {"port": 80}],
            "ports": [{"port": 80, "name": "b"}, {"port": 82}, {"port": 81, "$patch": "delete"}],
        }});
        let expected = json!({"spec": {"ports": [{"port": 82}, {"port": 80, "name": "b"}]}});
        assert_eq!(merged("services", service, &patch), expected);
        // An EndpointSlice has ports too, which are replaced.
        let slice = json!({"ports": [{"port": 80}]});
        assert_eq!(
            merged("endpointslices", slice, &json!({"ports": [{"port": 81}]})),
            json!({"ports": [{"port": 81}]})
        );
    }

    #[test]
    fn a_json_merge_patch_replaces_lists() {
        let mut service = json!({"spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        super::json(&mut service, &json!({"spec": {"ports": [{"port": 81}], "type": null}}));
        assert_eq!(service, json!({"spec": {"ports": [{"port": 81}]}}));
    }
}
