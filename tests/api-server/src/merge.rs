//! Strategic merge, as far as Weft's clients send it: objects field by field, `null` removes, conditions by their type.

use serde_json::Value;

/// Lists that are merged by a key of their elements (the API's `patchMergeKey`); every other list is replaced.
const KEYED: &[(&str, &str)] = &[("conditions", "type")];

/// Applies a strategic merge patch.
pub(crate) fn strategic(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    for (name, value) in fields {
        let key = KEYED.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        match (key, value) {
            (_, Value::Null) => {
                object.as_object_mut().map(|object| object.remove(name));
            }
            (Some(key), Value::Array(elements)) => merge_list(&mut object[name], elements, key),
            _ => strategic(&mut object[name], value),
        }
    }
}

fn merge_list(list: &mut Value, elements: &[Value], key: &str) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else { return };
    for element in elements {
        match list.iter_mut().find(|old| old[key] == element[key]) {
            Some(old) => strategic(old, element),
            None => list.push(element.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::strategic;

    #[test]
    fn fields_merge_and_conditions_merge_by_type() {
        let mut node = json!({
            "metadata": {"annotations": {"a": "1", "b": "2"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "A", "since": 1}]},
        });
        let patch = json!({
            "metadata": {"annotations": {"b": null, "c": "3"}},
            "status": {"conditions": [{"type": "X", "status": "B"}, {"type": "Y"}], "list": [1]},
        });
        strategic(&mut node, &patch);
        let merged = json!({
            "metadata": {"annotations": {"a": "1", "c": "3"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "B", "since": 1}, {"type": "Y"}],
                "list": [1],
            },
        });
        assert_eq!(node, merged);
        let mut bare = json!({});
        strategic(&mut bare, &json!({"metadata": {"annotations": {"a": "1"}}}));
        assert_eq!(bare, json!({"metadata": {"annotations": {"a": "1"}}}));
    }
}
