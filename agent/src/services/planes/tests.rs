use std::sync::{Arc, Mutex};

use weft_proxy::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Endpoint, PlanKey},
};

use super::Planes;

/// Writes down what it is asked to do, and fails while told to.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    applied: Vec<Changed>,
    failing: bool,
    lost: bool,
}

impl DataPlane for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn apply(&mut self, _: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        let mut recorded = self.0.lock().unwrap();
        recorded.applied.push(changed.clone());
        if recorded.failing {
            return Err(DataPlaneError { plane: "recorder", doing: "test".to_owned(), source: "told to fail".into() });
        }
        Ok(())
    }

    fn is_intact(&mut self) -> Result<bool, DataPlaneError> {
        Ok(!std::mem::take(&mut self.0.lock().unwrap().lost))
    }

    fn connections(&self, _: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        let endpoint = Endpoint { address: [10, 0, 0, 1].into(), port: 80, local: true };
        Ok(vec![EndpointConnections { endpoint, connections: 3 }])
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

impl Recorder {
    fn taken(&self) -> Vec<Changed> {
        std::mem::take(&mut self.0.lock().unwrap().applied)
    }
}

fn key(name: &str) -> PlanKey {
    let service = ServiceName::new("default", name);
    PlanKey { port: ServicePortName { service, port: "".into(), protocol: Protocol::Tcp }, family: IpFamily::V4 }
}

fn planes(recorders: &[Recorder]) -> Planes {
    Planes::new(recorders.iter().map(|recorder| Box::new(recorder.clone()) as Box<dyn DataPlane>).collect())
}

#[test]
fn the_first_apply_is_of_everything_and_then_only_of_what_changed() {
    let recorder = Recorder::default();
    let mut planes = planes(std::slice::from_ref(&recorder));
    let desired = Desired::default();
    assert!(planes.apply(&desired));
    assert_eq!(recorder.taken(), [Changed::Everything]);
    assert!(!planes.apply(&desired));
    planes.ports_changed(&[key("b"), key("a")]);
    planes.ports_changed(&[key("a")]);
    planes.node_port_addresses_changed();
    assert!(planes.apply(&desired));
    let expected = [Changed::NodePortAddresses, Changed::Ports(vec![key("a"), key("b")])];
    assert_eq!(recorder.taken(), expected);
}

#[test]
fn after_a_failure_everything_is_tried_again_and_the_others_go_on() {
    let (broken, sound) = (Recorder::default(), Recorder::default());
    let mut planes = planes(&[broken.clone(), sound.clone()]);
    let desired = Desired::default();
    broken.0.lock().unwrap().failing = true;
    planes.apply(&desired);
    assert_eq!(sound.taken(), [Changed::Everything]);
    assert!(planes.error().unwrap().contains("told to fail"));
    broken.taken();

    planes.ports_changed(&[key("a")]);
    planes.apply(&desired);
    assert_eq!(broken.taken(), [], "not before its pause is over");
    assert_eq!(sound.taken(), [Changed::Ports(vec![key("a")])]);

    broken.0.lock().unwrap().failing = false;
    let pause = planes.next_retry().unwrap();
    assert!(pause <= super::FIRST_RETRY);
    planes.0[0].failure.as_mut().unwrap().retry_at = std::time::Instant::now();
    planes.apply(&desired);
    assert_eq!(broken.taken(), [Changed::Everything]);
    assert_eq!(planes.error(), None);
    assert_eq!(planes.next_retry(), None);
}

#[test]
fn lost_kernel_objects_are_put_back() {
    let recorder = Recorder::default();
    let mut planes = planes(std::slice::from_ref(&recorder));
    planes.apply(&Desired::default());
    recorder.taken();
    assert_eq!(planes.check(), 0);
    recorder.0.lock().unwrap().lost = true;
    assert_eq!(planes.check(), 1);
    planes.apply(&Desired::default());
    assert_eq!(recorder.taken(), [Changed::Everything]);
}

#[test]
fn connections_of_all_data_planes_are_added_up() {
    let planes = planes(&[Recorder::default(), Recorder::default()]);
    let connections = planes.connections(&key("a"));
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].connections, 6);
}
