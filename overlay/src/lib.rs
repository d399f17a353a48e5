//! Pod network of one node: subnet leases, VXLAN and masquerading.
