//! The planned Services as `weft services` shows them.

use weft_proxy::{
    model::ServiceName,
    plan::{Endpoint, Frontend, Outcome, Planner, ServicePortPlan},
};

use super::planes::Planes;
use crate::status::{EndpointStatus, FrontendStatus, ServiceStatus, Verdict};

/// All Services, or the one named `namespace/name`, with their connection counters.
pub(crate) fn services(planner: &Planner, planes: &Planes, service: Option<&str>) -> Vec<ServiceStatus> {
    let wanted = |name: &ServiceName| {
        service.is_none_or(|wanted| wanted.split_once('/') == Some((&*name.namespace, &*name.name)))
    };
    let plans = planner.ports().values().filter(|plan| wanted(&plan.key.port.service));
    plans.map(|plan| service_port(plan, planes)).collect()
}

fn service_port(plan: &ServicePortPlan, planes: &Planes) -> ServiceStatus {
    let counted = planes.connections(&plan.key);
    let endpoint = |endpoint: &Endpoint| EndpointStatus {
        address: endpoint.address,
        port: endpoint.port,
        local: endpoint.local,
        connections: counted.iter().find(|one| one.endpoint == *endpoint).map_or(0, |one| one.connections),
    };
    let name = &plan.key.port;
    ServiceStatus {
        namespace: name.service.namespace.to_string(),
        name: name.service.name.to_string(),
        port: name.port.to_string(),
        protocol: name.protocol,
        family: plan.key.family,
        frontends: plan.frontends.iter().map(frontend).collect(),
        internal: verdict(&plan.internal),
        external: verdict(&plan.external),
        endpoints: plan.endpoints().iter().map(endpoint).collect(),
    }
}

fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Endpoints(_) => Verdict::Endpoints,
        Outcome::Reject => Verdict::Reject,
        Outcome::Drop => Verdict::Drop,
    }
}

fn frontend(frontend: &Frontend) -> FrontendStatus {
    let at = |kind: &str, address: &std::net::SocketAddr| FrontendStatus {
        kind: kind.to_owned(),
        address: Some(address.ip()),
        port: address.port(),
    };
    match frontend {
        Frontend::ClusterIp(address) => at("ClusterIP", address),
        Frontend::ExternalIp(address) => at("ExternalIP", address),
        Frontend::LoadBalancer(address) => at("LoadBalancer", address),
        Frontend::NodePort(port) => FrontendStatus { kind: "NodePort".to_owned(), address: None, port: *port },
    }
}
