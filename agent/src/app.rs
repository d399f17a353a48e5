//! Puts the agent together: the only place that knows all parts.
//!
//! Order at start: check everything, then overlay, then Services, then the source. Nothing is undone at the end: the
//! data plane outlives the agent.

use std::{
    fmt::Display,
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
use tracing::{Instrument, debug, error, info, info_span};
use tracing_subscriber::EnvFilter;
use weft_overlay::{CleanupConfig, OverlayStatus, StoredSettings};
use weft_proxy::plan::{Planner, PlannerConfig};

use crate::{
    cli::{AgentArgs, PathArgs},
    cni_files,
    config::{Config, OverlayConfig, SourceKind},
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
    start_logging();
    checked(args, "agent", |config, runtime| runtime.block_on(run(config)))
}

/// `weft cleanup`: removes everything of ours from the node.
pub(crate) fn cleanup(args: &AgentArgs) -> ExitCode {
    checked(args, "cleanup", |config, runtime| runtime.block_on(remove_everything(config)))
}

/// Checks configuration and privileges before anything on the node is touched, then does `work`.
fn checked(args: &AgentArgs, command: &str, work: impl FnOnce(Config, &Runtime) -> anyhow::Result<()>) -> ExitCode {
    let config = match Config::load(args) {
        Ok(config) => config,
        Err(mistakes) => {
            complain(command, &mistakes);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let missing = privileges::missing();
    if !missing.is_empty() {
        complain(command, &missing);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.context("start the runtime").and_then(|runtime| work(config, &runtime)) {
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

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
}

async fn run(config: Config) -> anyhow::Result<()> {
    log_config(&config);
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
    let Config { node_name, components, source, proxy, overlay, paths } = config;
    info!(version = env!("CARGO_PKG_VERSION"), node = node_name, components = components.names().join(","), "starting");
    info!(run = %paths.run_dir.display(), state = %paths.state_dir.display(), "directories");
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
            let node = config.node_name.clone();
            let watching = async move {
                source::kube::watch(client, &node, |event| services.source_event(event)).await;
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
