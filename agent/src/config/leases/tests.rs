use std::fs;

use weft_overlay::{EtcdConfig, EtcdUser};

use super::{Duration, SubnetManager};
use crate::config::{
    Config, KubeAccess,
    tests::{Files, text},
};

fn etcd(config: Config) -> EtcdConfig {
    match config.overlay.unwrap().subnet_manager {
        SubnetManager::Etcd(etcd) => etcd,
        other => panic!("{other:?}"),
    }
}

#[test]
fn etcd_has_flannels_defaults() {
    let files = Files::new();
    let config = files.load(&["--subnet-manager=etcd"]).unwrap();
    let expected = EtcdConfig {
        endpoints: vec!["http://127.0.0.1:4001".into(), "http://127.0.0.1:2379".into()],
        prefix: "/coreos.com/network".into(),
        ca_file: None,
        client_certificate: None,
        user: None,
        renew_margin: Duration::from_secs(3600),
    };
    assert!(config.overlay.as_ref().unwrap().net_conf.is_some(), "a file that is given goes first");
    assert_eq!(etcd(config), expected);
}

#[test]
fn without_a_file_etcd_has_the_network_configuration() {
    let files = Files::new();
    let config = files.load_without("--net-conf", &["--subnet-manager=etcd"]).unwrap();
    assert_eq!(config.overlay.unwrap().net_conf, None);
    let missing = text(files.load_without("--net-conf", &[]));
    assert!(missing[0].starts_with(r#"--net-conf: "/etc/kube-flannel/net-conf.json": cannot be read"#), "{missing:?}");
}

#[test]
fn etcd_over_tls_with_a_user() {
    let files = Files::new();
    for name in ["ca", "cert", "key"] {
        fs::write(files.path(name), "").unwrap();
    }
    let flag = |name: &str, file: &str| format!("--etcd-{name}={}", files.path(file));
    let (ca, cert, key) = (flag("cafile", "ca"), flag("certfile", "cert"), flag("keyfile", "key"));
    let tls = "--etcd-endpoints=https://192.0.2.1:2379, https://192.0.2.2:2379";
    // The CA alone is enough.
    let alone = etcd(files.load(&["--subnet-manager=etcd", tls, &ca]).unwrap());
    assert_eq!((alone.ca_file, alone.client_certificate), (Some(files.path("ca").into()), None));
    assert_eq!(alone.endpoints, ["https://192.0.2.1:2379", "https://192.0.2.2:2379"]);
    let user = ["--etcd-username=weft", "--etcd-password=secret"];
    let all = ["--subnet-manager=etcd", tls, &ca, &cert, &key, user[0], user[1], "--subnet-lease-renew-margin=1439"];
    let config = files.load(&all).unwrap();
    assert!(!format!("{config:?}").contains("secret"), "the configuration is logged");
    let both = etcd(config);
    assert!(both.client_certificate.is_some());
    assert_eq!(both.user, Some(EtcdUser { name: "weft".into(), password: "secret".into() }));
    assert_eq!(both.renew_margin, Duration::from_secs(1439 * 60));
}

#[test]
fn mistakes_about_etcd_are_reported_together() {
    let files = Files::new();
    fs::write(files.path("key"), "").unwrap();
    let key = format!("--etcd-keyfile={}", files.path("key"));
    let mistakes = text(files.load(&[
        "--subnet-manager=etcd",
        "--kube-subnet-mgr",
        "--etcd-endpoints=http://192.0.2.1:2379,192.0.2.2:2379",
        "--etcd-prefix=/",
        "--etcd-cafile=/nowhere/ca",
        &key,
        "--etcd-password=secret",
        "--subnet-lease-renew-margin=1440",
        "--conntrack-bypass=maybe",
    ]));
    let expected = [
        r#"--kube-subnet-mgr: "true": contradicts --subnet-manager=etcd"#.to_owned(),
        r#"--etcd-endpoints: "192.0.2.2:2379": must be a URL such as https://192.0.2.1:2379"#.to_owned(),
        r#"--etcd-prefix: "/": must name a place such as /coreos.com/network"#.to_owned(),
        r#"--etcd-cafile: "/nowhere/ca": cannot be read: No such file or directory (os error 2)"#.to_owned(),
        r#"--etcd-cafile: "/nowhere/ca": needs --etcd-endpoints with https://"#.to_owned(),
        format!("--etcd-keyfile: {:?}: needs --etcd-endpoints with https://", files.path("key")),
        "--etcd-certfile: is needed with --etcd-keyfile".to_owned(),
        "--etcd-password: needs --etcd-username".to_owned(),
        r#"--subnet-lease-renew-margin: "1440": must be 1 to 1439"#.to_owned(),
        r#"--conntrack-bypass: "maybe": must be auto, on or off"#.to_owned(),
    ];
    assert_eq!(mistakes, expected);
}

#[test]
fn kube_is_the_default_and_flannels_flag_says_the_same() {
    let files = Files::new();
    fs::write(files.path("kubeconfig"), "").unwrap();
    let kubeconfig = format!("--kubeconfig={}", files.path("kubeconfig"));
    // A pool is not needed: subnets are assigned.
    fs::write(files.path("net-conf.json"), r#"{"Network":"10.244.0.0/30"}"#).unwrap();
    for flags in [vec![], vec!["--kube-subnet-mgr"], vec!["--subnet-manager=kube", "--kube-subnet-mgr=true"]] {
        let flags = [flags, vec![&kubeconfig, "--set-node-network-unavailable=false"]].concat();
        let SubnetManager::Kube(kube) =
            files.load_without("--subnet-manager", &flags).unwrap().overlay.unwrap().subnet_manager
        else {
            panic!("not kube")
        };
        assert_eq!(
            kube.access,
            KubeAccess { kubeconfig: Some(files.path("kubeconfig").into()), master: None, trust_empty_lists: false }
        );
        assert_eq!(kube.annotation_prefix.to_string(), "flannel.alpha.coreos.com/");
        assert!(!kube.set_network_unavailable);
    }
}

#[test]
fn mistakes_about_kube_are_reported_together() {
    let files = Files::new();
    let mistakes = text(files.load(&[
        "--subnet-manager=kube",
        "--kubeconfig=/nowhere/kubeconfig",
        "--kube-annotation-prefix=flannel",
    ]));
    assert!(mistakes[0].starts_with(r#"--kubeconfig: "/nowhere/kubeconfig": cannot be read"#), "{mistakes:?}");
    assert!(mistakes[1].starts_with(r#"--kube-annotation-prefix: "flannel": must be a domain"#), "{mistakes:?}");
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    let other = text(files.load(&["--subnet-manager=consul"]));
    assert_eq!(other, [r#"--subnet-manager: "consul": must be kube, etcd or dir:PATH"#]);
}
