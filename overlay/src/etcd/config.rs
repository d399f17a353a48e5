//! How to reach etcd.

use std::{fmt, path::PathBuf, time::Duration};

/// flanneld's `--etcd-*` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs of the members, all `http://` or all `https://`. At least one.
    pub endpoints: Vec<String>,
    /// Where flannel's keys are, such as `/coreos.com/network`. A slash at the end does not matter.
    pub prefix: String,
    /// PEM file with the authorities that servers are trusted from; `None`: those of the system. Only for `https://`.
    pub ca_file: Option<PathBuf>,
    /// What this node proves itself with; flannel ignores a CA without it, Weft does not (flannel-defects.md D.6).
    pub client_certificate: Option<ClientCertificate>,
    /// User of etcd's own authentication.
    pub user: Option<EtcdUser>,
    /// How long before its end a lease is renewed; at most [`EtcdConfig::LEASE_TTL`].
    pub renew_margin: Duration,
}

impl EtcdConfig {
    /// How long a lease lives without renewal, as in flannel.
    pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
}

/// PEM files of a client certificate. They are read at each connection, so that renewed ones are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, with its chain.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// Name of the user.
    pub name: String,
    /// Its password.
    pub password: String,
}

/// Configurations are logged; passwords are not.
impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}
