//! The answer of a health-check node port: kube-proxy.md 11.3. Pure; who listens is the agent's business.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::model::ServiceName;

/// An HTTP response, complete but for what every response has (version, date, length).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckResponse {
    /// 200: send traffic here; 503: do not.
    pub status: u16,
    /// Names and values, in order.
    pub headers: [(&'static str, String); 3],
    /// JSON, with tabs and without a final newline.
    pub body: String,
}

/// Answers any method and any path.
///
/// `local_endpoints` is the count of the family asked in ([`HealthCheck`](crate::plan::HealthCheck)), as of the last apply
/// that succeeded. `proxy_healthy` is what `/livez` tells, of both families and without regard to the Node.
pub fn respond(service: &ServiceName, local_endpoints: usize, proxy_healthy: bool) -> HealthCheckResponse {
    let body = Body {
        service: ServiceBody { namespace: &service.namespace, name: &service.name },
        local_endpoints,
        service_proxy_healthy: proxy_healthy,
    };
    HealthCheckResponse {
        status: if local_endpoints > 0 && proxy_healthy { 200 } else { 503 },
        headers: [
            ("Content-Type", "application/json".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
            // Also with 503: load balancers that weigh nodes read it.
            ("X-Load-Balancing-Endpoint-Weight", local_endpoints.to_string()),
        ],
        body: body.to_json(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: ServiceBody<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct ServiceBody<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Body<'_> {
    fn to_json(&self) -> String {
        let mut json = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"\t")))
            .expect("plain fields always serialize into memory");
        String::from_utf8(json).expect("JSON is UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "{
\t\"service\": {
\t\t\"namespace\": \"ns1\",
\t\t\"name\": \"svc1\"
\t},
\t\"localEndpoints\": 2,
\t\"serviceProxyHealthy\": true
}";

    #[test]
    fn rule_11_3_body_and_headers() {
        let response = respond(&ServiceName::new("ns1", "svc1"), 2, true);
        assert_eq!(response.body, BODY);
        let headers: Vec<_> = response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "Content-Type: application/json",
                "X-Content-Type-Options: nosniff",
                "X-Load-Balancing-Endpoint-Weight: 2"
            ]
        );
    }

    #[test]
    fn rule_11_3_status_needs_endpoints_and_health() {
        for (endpoints, healthy, status) in [(2, true, 200), (0, true, 503), (2, false, 503), (0, false, 503)] {
            let response = respond(&ServiceName::new("ns1", "svc1"), endpoints, healthy);
            assert_eq!(response.status, status, "{endpoints} {healthy}");
            // On 503 too.
            assert_eq!(response.headers[2].1, endpoints.to_string());
            assert!(response.body.contains(&format!("\"serviceProxyHealthy\": {healthy}")));
        }
    }
}
