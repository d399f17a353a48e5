//! `kubectl apply -k` of every overlay at the test API server, twice.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    api_server::ApiServer,
    render::{OVERLAYS, Tree, objects},
};

fn apply(server: &ApiServer, directory: &Path) -> Result<String> {
    // Fields are checked by `types`; older versions want a schema for it, which the test server has none of.
    let output = server.kubectl().args(["apply", "--validate=false", "-k"]).arg(directory).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl apply -k {}: {errors}", directory.display());
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_overlay_is_applied_and_then_unchanged() -> Result<()> {
    let tree = Tree::copy()?;
    for directory in OVERLAYS.iter().map(|name| tree.overlay(name)).chain([tree.monitoring()]) {
        let server = ApiServer::start()?;
        let count = objects(&directory)?.len();
        for word in ["created", "unchanged"] {
            let answer = apply(&server, &directory)?;
            let lines: Vec<&str> = answer.lines().collect();
            ensure!(
                lines.len() == count && lines.iter().all(|line| line.ends_with(word)),
                "{}: {answer}",
                directory.display()
            );
        }
    }
    Ok(())
}
