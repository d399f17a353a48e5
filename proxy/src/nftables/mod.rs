//! The packet path: the plan carried into our own nftables table.
