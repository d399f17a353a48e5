use weft_proxy::model::api::Object;

use super::{ManifestError, parse};

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}\n";

fn kinds(text: &str) -> Vec<(u64, &'static str)> {
    parse(text)
        .unwrap()
        .objects
        .iter()
        .map(|(line, object)| {
            let kind = match object {
                Object::Service(_) => "Service",
                Object::EndpointSlice(_) => "EndpointSlice",
                Object::Node(_) => "Node",
                Object::Malformed(_) => "Malformed",
            };
            (*line, kind)
        })
        .collect()
}

#[test]
fn each_document_is_read_with_its_line() {
    let text = format!("# comment\n---\n{SERVICE}---\n{SERVICE}---\n\n---\n");
    assert_eq!(kinds(&text), [(3, "Service"), (8, "Service")]);
}

#[test]
fn json_is_yaml() {
    let text = r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}"#;
    assert_eq!(kinds(text), [(1, "Node")]);
}

#[test]
fn what_kubectl_prints_is_read() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  metadata: {name: a}\n- kind: Pod\n  metadata: {name: b}\n";
    let manifest = parse(text).unwrap();
    assert_eq!(manifest.objects.len(), 1);
    assert_eq!(manifest.other_kinds, [(1, "Pod".to_owned())]);
    let typed = r#"{"kind":"NodeList","items":[{"metadata":{"name":"n1"}}]}"#;
    assert_eq!(kinds(typed), [(1, "Node")]);
}

#[test]
fn other_kinds_are_named_and_left_alone() {
    let manifest = parse("kind: Deployment\nspec: {replicas: 2}\n").unwrap();
    assert!(manifest.objects.is_empty());
    assert_eq!(manifest.other_kinds, [(1, "Deployment".to_owned())]);
}

#[test]
fn a_mistake_is_reported_with_its_line_in_the_file() {
    let broken = format!("{SERVICE}---\nkind: Service\nmetadata:\n  name: [oops\n");
    let ManifestError { line, problem } = parse(&broken).unwrap_err();
    assert!((8..=10).contains(&line), "line {line}: {problem}");

    let wrong_type = format!("{SERVICE}---\nkind: Service\nmetadata: {{name: web}}\nspec:\n  ports: 80\n");
    let ManifestError { line, problem } = parse(&wrong_type).unwrap_err();
    assert_eq!(line, 9, "{problem}");
    assert!(!problem.contains("line"), "{problem}");

    let no_kind = parse("metadata: {name: x}\n").unwrap_err();
    assert_eq!(no_kind.to_string(), "line 1: the document has no `kind`");
}

#[test]
fn dashes_inside_a_block_do_not_split_it() {
    let text = "kind: ConfigMap\ndata:\n  a: |\n    ---\n    x\n---\nkind: Pod\n";
    assert_eq!(parse(text).unwrap().other_kinds.len(), 2);
}
