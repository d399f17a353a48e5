//! Clusters with the programs of `KUBEBUILDER_ASSETS`. There is none of these on a machine of CI, so: with a real etcd, a real
//! `kubectl`, and the small server behind TLS in the place of kube-apiserver.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_tests::{Cluster, Request, eventually, secs};

/// Notes its arguments, makes the certificate that kube-apiserver would make, and stays on when it is started again, as etcd's data do.
const FAKE: &str = r#"#!/bin/bash -e
printf '%s\n' "$@" > "${0%/*}/arguments"
for argument; do
    case $argument in
        --cert-dir=*) certs=${argument#*=} ;;
        --advertise-address=*) address=${argument#*=} ;;
        --secure-port=*) port=${argument#*=} ;;
        --token-auth-file=*) cut -d, -f1 "${argument#*=}" > "${0%/*}/token" ;;
    esac
done
[ -e "$certs/apiserver.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=fake \
    -addext "subjectAltName=IP:$address" -addext basicConstraints=critical,CA:FALSE \
    -keyout "$certs/apiserver.key" -out "$certs/apiserver.crt"
if [ ! -e "${0%/*}/small.pid" ]; then
    SMALL --listen 127.0.0.1:8080 --load "${0%/*}/objects" --token-file "${0%/*}/token" &
    echo $! > "${0%/*}/small.pid"
fi
exec socat "OPENSSL-LISTEN:$port,bind=$address,fork,reuseaddr,cert=$certs/apiserver.crt,key=$certs/apiserver.key,verify=0" \
    TCP:127.0.0.1:8080,retry=50,interval=0.1
"#;

/// A directory as `setup-envtest` makes it.
fn assets(directory: &Path) -> Result<()> {
    fs::create_dir(directory.join("objects"))?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    fs::write(directory.join("objects/default.json"), namespace.to_string())?;
    let small = Path::new(env!("CARGO_BIN_EXE_weft-testkit")).with_file_name("weft-test-apiserver");
    let server = directory.join("kube-apiserver");
    fs::write(&server, FAKE.replace("SMALL", &small.display().to_string()))?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755))?;
    for program in ["etcd", "kubectl"] {
        let found = ["/usr/bin", "/usr/local/bin"]
            .map(|bin| Path::new(bin).join(program))
            .into_iter()
            .find(|path| path.exists());
        std::os::unix::fs::symlink(found.with_context(|| format!("no {program}"))?, directory.join(program))?;
    }
    Ok(())
}

#[test]
fn a_cluster_gets_all_from_the_programs_of_kubebuilder_assets() -> Result<()> {
    let directory = tempfile::tempdir()?;
    assets(directory.path())?;
    let mut cluster = Cluster::builder().nodes(2).real_api_server(directory.path()).kube_leases().build()?;
    let arguments = fs::read_to_string(directory.path().join("arguments"))?;
    for argument in [
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--service-cluster-ip-range=10.96.0.0/12,2001:db8:96::/112",
        "--disable-admission-plugins=ServiceAccount",
    ] {
        ensure!(arguments.lines().any(|line| line == argument), "no {argument} in:\n{arguments}");
    }
    cluster.outside().run("curl", &["-sf", "http://127.0.0.1:2379/health"])?;

    let (web, client) = (cluster.node(1).pod("web")?, cluster.node(2).pod("client")?);
    let _server = web.serve()?;
    client.request(&Request::tcp(web.socket_v4(8080)?))?.all_good()?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\n\
        spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    cluster.manifests().apply("web.yaml", service)?;
    cluster.manifests().endpoints("web", &[weft_tests::SlicePort::new("http", "TCP", 8080)], &[&web])?;
    let request = Request::tcp(([10, 96, 0, 10], 80).into()).timeout(secs(1));
    eventually(secs(10), || client.request(&request)?.all_good())?;

    cluster.manifests_mut().kill_api_server()?;
    client.request(&request)?.all_good()?;
    cluster.manifests_mut().restart_api_server()?;
    cluster.manifests().delete("web.yaml")?;
    eventually(secs(30), || {
        let services = cluster.node(2).agent().services()?;
        ensure!(services.is_empty(), "{services:?}");
        Ok(())
    })?;
    let refused = cluster.manifests().api_server_faults(&json!({})).expect_err("no faults on demand");
    ensure!(refused.to_string().contains("small_api_server"), "{refused}");
    cluster.shutdown()
}
