//! Puts the agent together: the only place that knows all parts.
//!
//! Order at start: check everything, then overlay, then Services, then the source. Nothing is undone at the end: the
//! data plane outlives the agent.

use std::{
    fmt::Display,
    fs,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};
use tracing_subscriber::EnvFilter;
use weft_overlay::{CleanupConfig, OverlayStatus, StoredSettings};
use weft_proxy::plan::{Planner, PlannerConfig};

use crate::{
    cli::{AgentArgs, PathArgs},
    cni_files,
    commands::{self, print_config},
    config::{Config, LogConfig, OverlayConfig, SourceKind},
    conntrack_parameters, data_planes, node_addresses, pod_network, privileges,
    server::{Identity, Server, Sources},
    services::{
        self, Health, Parts,
        health_checks::{self, ListenFailure},
    },
    source,
};

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;

/// `weft agent`: runs until SIGTERM or SIGINT.
pub(crate) fn main(args: &AgentArgs) -> ExitCode {
    if args.instead.cleanup {
        return cleanup(args);
    }
    let Some(config) = checked(args, "agent") else { return ExitCode::from(EXIT_USAGE) };
    if args.instead.print_config {
        return commands::write_out(&print_config::print(&config, &args.given, args.instead.output));
    }
    if let Some(path) = &args.instead.write_config_to {
        let written = fs::write(path, format!("{:#}\n", config.settings.document()));
        return exit_code("agent", written.with_context(|| format!("write {}", path.display())));
    }
    start_logging(&config.log);
    for notice in &config.notices {
        warn!("{notice}");
    }
    privileged("agent", |runtime| runtime.block_on(run(config)))
}

/// `weft cleanup`: removes everything of ours from the node.
pub(crate) fn cleanup(args: &AgentArgs) -> ExitCode {
    let Some(config) = checked(args, "cleanup") else { return ExitCode::from(EXIT_USAGE) };
    privileged("cleanup", |runtime| runtime.block_on(remove_everything(config)))
}

/// The configuration; `None` after all mistakes in it are told.
fn checked(args: &AgentArgs, command: &str) -> Option<Config> {
    Config::load(args).map_err(|mistakes| complain(command, &mistakes)).ok()
}

/// Checks privileges before anything on the node is touched, then does `work`.
fn privileged(command: &str, work: impl FnOnce(&Runtime) -> anyhow::Result<()>) -> ExitCode {
    let missing = privileges::missing();
    if !missing.is_empty() {
        complain(command, &missing);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    exit_code(command, runtime.context("start the runtime").and_then(|runtime| work(&runtime)))
}

fn exit_code(command: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(command, &[format!("{error:#}")]);
            ExitCode::FAILURE
        }
    }
}

fn complain(command: &str, problems: &[impl Display]) {
    for problem in problems {
        eprintln!("weft {command}: {problem}");
    }
}

fn start_logging(log: &LogConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.filter()));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if log.json {
        lines.json().init();
    } else {
        lines.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// Tells the kernel how unlike it is to end the agent when memory is short. Needs a privilege to be lowered; kube-proxy
/// ignores a failure too (14.9).
fn set_oom_score(adjustment: i64) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", adjustment.to_string()) {
        debug!(%error, adjustment, "oom_score_adj stays as it is");
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    log_config(&config);
    set_oom_score(config.oom_score_adj);
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    // First, since a second agent with the same directories must not get further than this.
    let server = Server::bind(&config.paths.run_dir).context("the agent's socket")?;

    let overlay = match &config.overlay {
        Some(overlay) => Some(pod_network::start(&config, overlay, &shutdown).await?),
        None => None,
    };
    if let (true, Some(overlay)) = (config.components.cni, &overlay) {
        tokio::spawn(install_cni(config.paths.clone(), overlay.clone()).instrument(info_span!("cni")));
    }
    let mut source_at = ("none", String::new());
    let mut services = None;
    if config.components.proxy {
        let handle = start_services(&config)?;
        source_at = start_source(&config, handle.clone()).await?;
        services = Some(handle);
    }

    let identity = Identity { node: config.node_name, components: config.components, source: source_at, started };
    let sources = Sources { identity, overlay, services };
    stop_on_signals(&shutdown)?;
    server.serve(sources, shutdown).await.context("the agent's socket")?;
    info!("stopped; the data plane stays as it is");
    Ok(())
}

/// The effective configuration, a line a part.
fn log_config(config: &Config) {
    let Config { node_name, components, source, proxy, overlay, paths, servers, .. } = config;
    info!(version = env!("CARGO_PKG_VERSION"), node = node_name, components = components.names().join(","), "starting");
    info!(run = %paths.run_dir.display(), state = %paths.state_dir.display(), "directories");
    info!(?servers, "health and metrics");
    if components.proxy {
        info!(?source, ?proxy, "Services");
    }
    if let Some(overlay) = overlay {
        info!(?overlay, subnet_file = %paths.subnet_file.display(), "pod network");
    }
    if components.cni {
        info!(conf = %paths.cni_conf_dir.display(), bin = %paths.cni_bin_dir.display(), "CNI");
    }
}

/// The network configuration may be in etcd; without it nobody knows what the devices are called.
async fn remove_overlay(config: &Config, overlay: &OverlayConfig) -> anyhow::Result<()> {
    let leases = pod_network::lease_manager(&config.node_name, &overlay.subnet_manager).await?;
    let stored = match &overlay.net_conf {
        Some(_) => StoredSettings::default(),
        None => leases.settings(&config.node_name).await?,
    };
    let settings = CleanupConfig {
        net_conf: pod_network::net_conf(overlay, &stored)?,
        subnet_file: config.paths.subnet_file.clone(),
        node_name: config.node_name.clone(),
    };
    weft_overlay::cleanup(&settings, Some(leases.as_ref())).await?;
    Ok(())
}

/// Tells the runtime that pods can be started, once that is so.
async fn install_cni(paths: PathArgs, mut overlay: watch::Receiver<OverlayStatus>) {
    if overlay.wait_for(|status| status.ready).await.is_err() {
        return;
    }
    match cni_files::install(&paths) {
        Ok(()) => info!(directory = %paths.cni_conf_dir.display(), "CNI configuration is in place"),
        Err(error) => error!(%error, "the runtime gets no CNI configuration, so no pod can start"),
    }
}

fn start_services(config: &Config) -> anyhow::Result<services::Handle> {
    let proxy = &config.proxy;
    // Before the data planes, which look at one of them (10.11).
    let conntrack = conntrack_parameters::apply(&proxy.conntrack);
    let health = Arc::new(Health::default());
    // The warning is in the log; an event on the Service would say the same.
    let on_failure = Box::new(|failure: &ListenFailure| {
        debug!(reason = ListenFailure::REASON, action = ListenFailure::ACTION, ?failure, "event");
    });
    let handle = services::start(
        proxy,
        Parts {
            planner: Planner::new(PlannerConfig::new(config.node_name.as_str())),
            data_planes: data_planes::open(proxy)?,
            health_checks: health_checks::start(config.node_name.clone(), Arc::clone(&health), on_failure),
            health,
            conntrack,
        },
    )?;
    let addresses = handle.clone();
    node_addresses::follow(move |now| addresses.node_addresses(now)).context("the node's addresses")?;
    Ok(handle)
}

/// Starts whatever delivers objects; returns its kind and place.
async fn start_source(config: &Config, services: services::Handle) -> anyhow::Result<(&'static str, String)> {
    match &config.source {
        SourceKind::Dir(path) => {
            let deliver = move |event| services.source_event(event);
            source::dir::watch(path, deliver).with_context(|| format!("watch {}", path.display()))?;
            Ok(("dir", path.display().to_string()))
        }
        SourceKind::Kube(access) => {
            let (client, url) = source::kube::connect(access).await?;
            let (node, run_dir, trusting) =
                (config.node_name.clone(), config.paths.run_dir.clone(), access.trust_empty_lists);
            let watching = async move {
                source::kube::watch(client, &node, &run_dir, trusting, |event| services.source_event(event)).await;
            };
            tokio::spawn(watching.instrument(info_span!("source")));
            Ok(("kube", url))
        }
    }
}

fn stop_on_signals(shutdown: &CancellationToken) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    }))
}

/// Goes on after a failure, so that as little as possible is left; reports all of them.
async fn remove_everything(config: Config) -> anyhow::Result<()> {
    // A running agent would put everything back.
    drop(Server::bind(&config.paths.run_dir).context("stop the agent first")?);
    let mut failures = Vec::new();
    let mut note = |result: anyhow::Result<()>| failures.extend(result.err().map(|error| format!("{error:#}")));
    if config.components.cni {
        note(cni_files::remove(&config.paths).context("CNI configuration"));
    }
    if config.components.proxy {
        for error in data_planes::remove_all(&config.proxy) {
            note(Err(error));
        }
    }
    if let Some(overlay) = &config.overlay {
        note(remove_overlay(&config, overlay).await);
    }
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
