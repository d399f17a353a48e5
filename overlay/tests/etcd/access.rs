//! Reaching etcd: TLS, certificates, users, members that are down; and `<prefix>/config`.

use etcd_client::PermissionType;
use weft_overlay::{EtcdConfig, EtcdLeases, EtcdUser, LeaseManager};

use crate::{
    NETWORK, keys, request,
    server::{Etcd, Tls, in_netns},
};

async fn refusal(config: EtcdConfig) -> String {
    EtcdLeases::new(config).acquire(&request(1, NETWORK)).await.unwrap_err().to_string()
}

#[test]
fn the_ca_alone_is_enough_for_tls() {
    // flannel-defects.md D.6: flannel ignores a CA without a client certificate.
    in_netns(async || {
        let etcd = Etcd::start(Tls::Server).await;
        etcd.leases().acquire(&request(1, NETWORK)).await.unwrap();
        let stranger = EtcdConfig { ca_file: Some(etcd.path("stranger.crt")), ..etcd.config() };
        let error = refusal(stranger).await;
        assert!(error.contains("https://127.0.0.1:2379"), "{error}");
        let gone = EtcdConfig { ca_file: Some(etcd.path("gone.crt")), ..etcd.config() };
        let error = refusal(gone).await;
        assert!(error.starts_with("read ") && error.contains("gone.crt"), "{error}");
    });
}

#[test]
fn a_client_certificate_is_shown() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Both).await;
        etcd.leases().acquire(&request(1, NETWORK)).await.unwrap();
        let without = EtcdConfig { client_certificate: None, ..etcd.config() };
        refusal(without).await;
        assert_eq!(keys(&mut etcd.operator().await).await.len(), 1);
    });
}

#[test]
fn users_prove_themselves_with_their_password() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        operator.role_add("root").await.unwrap();
        operator.user_add("root", "secret", None).await.unwrap();
        operator.user_grant_role("root", "root").await.unwrap();
        operator.role_add("weft").await.unwrap();
        let all = etcd_client::Permission::new(PermissionType::Readwrite, "/coreos.com/network/").with_prefix();
        operator.role_grant_permission("weft", all).await.unwrap();
        operator.user_add("weft", "password", None).await.unwrap();
        operator.user_grant_role("weft", "weft").await.unwrap();
        operator.auth_enable().await.unwrap();

        let with = |password: &str| EtcdConfig {
            user: Some(EtcdUser { name: "weft".into(), password: password.into() }),
            ..etcd.config()
        };
        let node = EtcdLeases::new(with("password"));
        node.acquire(&request(1, NETWORK)).await.unwrap();
        assert_eq!(node.watch().await.unwrap().borrow().as_ref().unwrap().leases.len(), 1);
        let error = refusal(with("wrong")).await;
        assert!(error.contains("authentication failed"), "{error}");
        let error = refusal(etcd.config()).await;
        assert!(error.contains("user name is empty"), "{error}");
        assert!(!format!("{:?}", with("password")).contains("password\""), "a password in the log");
    });
}

#[test]
fn a_member_that_is_down_does_not_matter() {
    // flannel's default has one: 4001, which etcd no longer listens on.
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let endpoints = vec!["http://127.0.0.1:4001".into(), "http://127.0.0.1:2379".into()];
        let node = EtcdLeases::new(EtcdConfig { endpoints, ..etcd.config() });
        node.acquire(&request(1, NETWORK)).await.unwrap();
        node.watch().await.unwrap();
    });
}

#[test]
fn the_network_configuration_is_read_from_config() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let node = EtcdLeases::new(EtcdConfig { prefix: "/other/".into(), ..etcd.config() });
        assert_eq!(node.settings("n1").await.unwrap().net_conf, None);
        etcd.operator().await.put("/other/config", NETWORK, None).await.unwrap();
        assert_eq!(node.settings("n1").await.unwrap().net_conf.as_deref(), Some(NETWORK));
    });
}
