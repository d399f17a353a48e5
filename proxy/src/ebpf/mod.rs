//! Socket-level load balancing: the plan carried into BPF maps.
