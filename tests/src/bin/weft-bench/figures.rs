//! Medians, percentiles, and figures that must not be exceeded.

use std::{fmt, time::Duration};

use serde::Serialize;

/// A figure and what it may be at most.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limit {
    name: String,
    value: f64,
    at_most: f64,
    unit: &'static str,
}

impl Limit {
    pub(crate) fn new(name: impl Into<String>, value: f64, at_most: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, at_most, unit }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, at_most, unit } = self;
        let missed = if value <= at_most { "" } else { "   MISSED" };
        let digits = if *value < 1.0 { 2 } else { 1 };
        write!(f, "{name:<58}{value:>8.digits$} {unit:<3} to reach: <= {at_most} {unit}{missed}")
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The middle one; NaN of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(values, 50)
}

/// The value that `percent` of them do not exceed; NaN of none.
pub(crate) fn percentile(values: impl Iterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
}
