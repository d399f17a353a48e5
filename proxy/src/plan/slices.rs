//! Every known EndpointSlice by its Service, whether that Service is there yet or not.

use std::{collections::HashMap, sync::Arc};

use crate::model::{EndpointSlice, ObjectRef, ServiceName};

#[derive(Debug, Default)]
pub(super) struct Slices {
    /// Where a slice is filed, so that it is found again when its label names another Service.
    owner: HashMap<ObjectRef, ServiceName>,
    /// Slices of a Service with their names, unordered: most have one, so a map each would cost more than it saves.
    by_service: HashMap<ServiceName, Vec<(Arc<str>, EndpointSlice)>>,
}

impl Slices {
    /// Files a slice, or with `None` removes it. Returns the Services whose endpoints may differ now: at most two.
    pub(super) fn set(&mut self, reference: &ObjectRef, slice: Option<EndpointSlice>) -> Vec<ServiceName> {
        if self.get(reference) == slice.as_ref() {
            return Vec::new();
        }
        let mut touched = Vec::from_iter(self.remove(reference));
        if let Some(slice) = slice {
            let service = slice.service.clone();
            self.owner.insert(reference.clone(), service.clone());
            let slices = self.by_service.entry(service.clone()).or_default();
            slices.reserve_exact(1);
            slices.push((reference.name.clone(), slice));
            touched.push(service);
        }
        touched
    }

    /// The slices of a Service.
    pub(super) fn of(&self, service: &ServiceName) -> Vec<&EndpointSlice> {
        self.by_service.get(service).into_iter().flatten().map(|(_, slice)| slice).collect()
    }

    /// Names of all slices.
    pub(super) fn references(&self) -> impl Iterator<Item = &ObjectRef> {
        self.owner.keys()
    }

    fn get(&self, reference: &ObjectRef) -> Option<&EndpointSlice> {
        let slices = self.by_service.get(self.owner.get(reference)?)?;
        slices.iter().find(|(name, _)| *name == reference.name).map(|(_, slice)| slice)
    }

    fn remove(&mut self, reference: &ObjectRef) -> Option<ServiceName> {
        let service = self.owner.remove(reference)?;
        if let Some(slices) = self.by_service.get_mut(&service) {
            slices.retain(|(name, _)| *name != reference.name);
            if slices.is_empty() {
                self.by_service.remove(&service);
            }
        }
        Some(service)
    }
}
