//! The real container runtime: containerd and runc of the distribution, pods made through CRI, `weft-cni` as their
//! network as the agent installed it (issue 5, point 9).

mod bandwidth;
mod cri;
mod daemon;
mod fixture;
mod host_port;
mod image;
mod lifecycle;
mod services;
mod weft_image;
