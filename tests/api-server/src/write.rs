//! Create, replace, patch, delete.

use axum::{http::StatusCode, response::Response};
use serde_json::Value;

use crate::{Server, failure, json, merge, store::Address, target::Target};

/// POST to a collection.
pub(crate) fn create(server: &Server, target: Target, body: &[u8]) -> Response {
    let object = match object(body) {
        Ok(object) => object,
        Err(answer) => return *answer,
    };
    let metadata = &object["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(prefix)) => format!("{prefix}{}", server.store().newest()),
        (None, None) => return failure(StatusCode::UNPROCESSABLE_ENTITY, "metadata.name: Required value"),
    };
    let address = Target { name, ..target }.address();
    if server.store().get(&address).is_some() {
        return failure(StatusCode::CONFLICT, &format!("{address} already exists"));
    }
    stored(server, address, object, StatusCode::CREATED)
}

/// PUT of an object, or of its status alone.
pub(crate) fn replace(server: &Server, target: &Target, body: &[u8]) -> Response {
    let address = target.address();
    let mut object = match object(body) {
        Ok(object) => object,
        Err(answer) => return *answer,
    };
    let Some(old) = server.store().get(&address).cloned() else { return not_found(&address) };
    if target.subresource == "status" {
        let status = object["status"].take();
        object = Value::clone(&old);
        object["status"] = status;
    }
    stored(server, address, object, StatusCode::OK)
}

/// PATCH of an object or a subresource. The real server takes annotations at `status` too, which flannel relies on.
///
/// Server-side apply goes only as far as tests need it: the applied object replaces the stored one.
pub(crate) fn patch(server: &Server, target: &Target, media_type: &str, body: &[u8]) -> Response {
    let address = target.address();
    let patch = match object(body) {
        Ok(patch) => patch,
        Err(answer) => return *answer,
    };
    let apply = media_type.starts_with("application/apply-patch");
    let old = server.store().get(&address).cloned();
    let object = match (apply, old) {
        (true, _) => patch,
        (false, None) => return not_found(&address),
        (false, Some(old)) => {
            let mut object = Value::clone(&old);
            if media_type.starts_with("application/merge-patch") {
                merge::json(&mut object, &patch);
            } else {
                merge::strategic(&target.resource, &mut object, &patch);
            }
            object
        }
    };
    stored(server, address, object, StatusCode::OK)
}

/// DELETE of one object.
pub(crate) fn delete(server: &Server, target: &Target) -> Response {
    let address = target.address();
    let deleted = server.store().delete(&address);
    match deleted {
        Some(object) => {
            server.changed();
            json(StatusCode::OK, object.text().to_owned())
        }
        None => not_found(&address),
    }
}

/// YAML or JSON; server-side apply is sent as YAML.
fn object(body: &[u8]) -> Result<Value, Box<Response>> {
    let parsed = match serde_json::from_slice(body) {
        Ok(object) => Ok(object),
        Err(_) => std::str::from_utf8(body)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string())),
    };
    match parsed {
        Ok(object) if object.is_object() => Ok(object),
        Ok(_) => Err(Box::new(failure(StatusCode::BAD_REQUEST, "the body is no object"))),
        Err(error) => Err(Box::new(failure(StatusCode::BAD_REQUEST, &error))),
    }
}

fn stored(server: &Server, address: Address, object: Value, code: StatusCode) -> Response {
    let stored = server.store().put(address, object);
    server.changed();
    json(code, stored.text().to_owned())
}

fn not_found(address: &Address) -> Response {
    failure(StatusCode::NOT_FOUND, &format!("{address} not found"))
}
