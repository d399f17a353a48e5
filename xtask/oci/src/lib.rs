//! Container images as archives, without a daemon: an image of one layer in the OCI layout, in a tar file, as
//! `ctr images import`, `skopeo copy oci-archive:` and `podman load` take it (image-spec 1.1, image-layout.md).
//!
//! The same content gives the same bytes: entries are sorted, owners are root, and every time is the epoch.

mod archive;
mod layer;

pub use archive::{Compression, Image};
pub use layer::Layer;
