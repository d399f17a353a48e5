//! Puts the agent together: the only place that knows all parts.
//!
//! Order at start: check everything, then overlay, then Services, then the source. Nothing is undone at the end: the
//! data plane outlives the agent.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};
use weft_overlay::OverlayStatus;
use weft_proxy::plan::{Planner, PlannerConfig};

use crate::{
    cli::AgentArgs,
    cni_files,
    config::{
        Config, ServersConfig, Settings, SourceKind,
        reload::{self, Live},
    },
    conntrack_parameters, data_planes,
    events::{self, Events, Note},
    health::{self, Health, Listening, NodeEligibility, Servers},
    host_ports,
    log::ChangeFilter,
    metrics::{self, About, Exposed, Metrics},
    node_addresses, pod_network,
    server::{Identity, Server, Sources},
    services::{
        self, Parts,
        health_checks::{self, ListenFailure},
    },
    source,
    status::ConfigStatus,
    trace,
};

/// How long an agent that has to end waits for its last event to be told.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A part cannot be started, or the agent's socket fails.
pub(crate) async fn run(config: Config, args: AgentArgs, log_filter: ChangeFilter) -> anyhow::Result<()> {
    config.announce();
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    // First, since a second agent with the same directories must not get further than this.
    let server = Server::bind(&config.paths.run_dir).context("the agent's socket")?;
    let metrics = Arc::new(Metrics::new());
    let api = match &config.source {
        SourceKind::Kube(access) if config.components.proxy => {
            Some(source::kube::connect(access, Some(&metrics)).await?)
        }
        _ => None,
    };
    let parts = Observers {
        events: Events::start(api.as_ref().map(|(client, _)| client.clone()), &config.node_name),
        metrics,
        health: Arc::new(services::Health::new(config.servers.late_after)),
        node: Arc::new(NodeEligibility::new(&config.node_name)),
    };

    let overlay = start_overlay(&config, &parts, &shutdown).await?;
    let mut source_at = ("none", String::new());
    let mut services = None;
    if config.components.proxy {
        let handle = start_services(&config, &parts)?;
        source_at = start_source(&config, api, &parts, handle.clone())?;
        services = Some(handle);
    }

    let about = About { started: Timestamp::now(), flags: Arc::new(args.given.shown()) };
    let (configuration, settings) = follow_configuration(&config, args, &parts, services.clone(), log_filter)?;
    let identity =
        Identity { node: config.node_name.clone(), components: config.components, source: source_at, started };
    let trace = trace::Basis {
        bpffs: config.proxy.bpffs.clone(),
        cgroup_root: config.proxy.cgroup_root.clone(),
        networks: config.paths.state_dir.join(cni_files::NETWORKS),
        ip_masq: config.overlay.as_ref().is_some_and(|overlay| overlay.ip_masq),
    };
    let sources = Sources { identity, overlay, services, trace, servers: Servers::default(), configuration };
    let exposed = Exposed {
        metrics: Arc::clone(&parts.metrics),
        services: sources.services.clone(),
        overlay: sources.overlay.clone(),
        settings,
        about,
    };
    serve_health_and_metrics(&config.servers, &parts, &sources, exposed, &shutdown).await?;
    parts.events.node(Note { warning: false, reason: "Starting", action: "StartKubeProxy", note: String::new() });
    stop_on_signals(&shutdown)?;
    server.serve(sources, shutdown).await.context("the agent's socket")?;
    info!("stopped; the data plane stays as it is");
    Ok(())
}

/// What looks at the others, and is looked at from outside.
struct Observers {
    events: Events,
    metrics: Arc<Metrics>,
    health: Arc<services::Health>,
    node: Arc<NodeEligibility>,
}

/// The pod network, with what looks at it; `None` when the component is off.
async fn start_overlay(
    config: &Config,
    parts: &Observers,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<watch::Receiver<OverlayStatus>>> {
    let Some(overlay) = &config.overlay else { return Ok(None) };
    let overlay = pod_network::start(config, overlay, &parts.metrics, shutdown).await?;
    tokio::spawn(events::follow_overlay(overlay.clone(), parts.events.clone()));
    if config.components.cni {
        let networks = config.paths.state_dir.join(cni_files::NETWORKS);
        tokio::spawn(host_ports::look_after(networks, shutdown.clone()).instrument(info_span!("cni")));
        let installing = cni_files::install_when_ready(config.paths.clone(), overlay.clone());
        tokio::spawn(installing.instrument(info_span!("cni")));
        let metrics = Arc::clone(&parts.metrics);
        if let Err(error) = metrics::cni::listen(&config.paths.state_dir, metrics, shutdown.clone()) {
            warn!(%error, "there will be no metrics of weft-cni");
        }
    }
    Ok(Some(overlay))
}

/// kube-proxy's two servers. One whose address cannot be had is tried again, or with `bindAddressHardFail` ends the agent.
async fn serve_health_and_metrics(
    config: &ServersConfig,
    parts: &Observers,
    sources: &Sources,
    exposed: Exposed,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let health = Health {
        services: sources.services.as_ref().map(|_| Arc::clone(&parts.health)),
        overlay: sources.overlay.clone(),
        node: Arc::clone(&parts.node),
        metrics: Arc::clone(&parts.metrics),
    };
    let [of_health, of_metrics] = ["--healthz-bind-address", "--metrics-bind-address"];
    let servers = [
        config.healthz.map(|at| ("health", at, of_health, health::router(health), "FailedToStartProxierHealthcheck")),
        Some(("metrics", config.metrics, of_metrics, metrics::router(exposed), "FailedToStartMetricServer")),
    ];
    for (name, at, flag, router, reason) in servers.into_iter().flatten() {
        let listening = Listening { name, at, hard_fail: config.hard_fail, flag };
        let tell = |why: &str| {
            parts.events.node(Note { warning: true, reason, action: "StartKubeProxy", note: why.to_owned() });
        };
        if let Err(why) = sources.servers.serve(listening, router, shutdown.clone(), tell) {
            tell(&why);
            parts.events.flush(LAST_WORDS).await;
            anyhow::bail!(why);
        }
    }
    Ok(())
}

/// Follows the configuration files; returns what is to be known of them, and what is in force.
fn follow_configuration(
    config: &Config,
    args: AgentArgs,
    parts: &Observers,
    services: Option<services::Handle>,
    log_filter: ChangeFilter,
) -> anyhow::Result<(watch::Receiver<ConfigStatus>, watch::Receiver<Settings>)> {
    let (status, status_now) = watch::channel(ConfigStatus::default());
    let (settings, settings_now) = watch::channel(config.settings.clone());
    let (health, events) = (Arc::clone(&parts.health), parts.events.clone());
    let live = Live {
        late_after: Box::new(move |limit| health.set_limit(limit)),
        node_port_addresses: Box::new(move |allowed| {
            if let Some(services) = &services {
                services.node_port_addresses(allowed);
            }
        }),
        log_filter,
        restart_needed: Box::new(move |fields| {
            let note = format!("restart the agent for {} to take effect", fields.join(", "));
            events.node(Note { warning: true, reason: "ConfigurationChanged", action: "FollowConfiguration", note });
        }),
    };
    reload::follow(args, config.clone(), live, settings, status).context("the configuration files")?;
    Ok((status_now, settings_now))
}

fn start_services(config: &Config, parts: &Observers) -> anyhow::Result<services::Handle> {
    let proxy = &config.proxy;
    // Before the data planes, which look at one of them (10.11).
    let conntrack = conntrack_parameters::apply(&proxy.conntrack);
    let health = Arc::clone(&parts.health);
    let events = parts.events.clone();
    let on_failure = Box::new(move |failure: &ListenFailure| {
        let (reason, action) = (ListenFailure::REASON, ListenFailure::ACTION);
        events.service(&failure.service, Note { warning: true, reason, action, note: failure.message.clone() });
    });
    let events = parts.events.clone();
    let late = Box::new(move |waited: Duration| {
        let note = format!("the kernel was out of date for {:.0} s", waited.as_secs_f64());
        events.node(Note { warning: true, reason: "ServicesRepaired", action: "SyncServices", note });
    });
    let handle = services::start(
        proxy,
        Parts {
            planner: Planner::new(PlannerConfig::new(config.node_name.as_str())),
            data_planes: data_planes::open(proxy)?,
            health_checks: health_checks::start(config.node_name.clone(), Arc::clone(&health), on_failure),
            health,
            metrics: Arc::clone(&parts.metrics),
            late,
            conntrack,
        },
    )?;
    let addresses = handle.clone();
    node_addresses::follow(move |now| addresses.node_addresses(now)).context("the node's addresses")?;
    let removals = handle.clone();
    services::removals::follow(move || removals.rules_removed()).context("follow removed rules")?;
    Ok(handle)
}

/// Starts whatever delivers objects; returns its kind and place.
fn start_source(
    config: &Config,
    api: Option<(kube::Client, String)>,
    parts: &Observers,
    services: services::Handle,
) -> anyhow::Result<(&'static str, String)> {
    let node = Arc::clone(&parts.node);
    let deliver = move |event| {
        node.see(&event);
        services.source_event(event)
    };
    match (&config.source, api) {
        (SourceKind::Kube(access), Some((client, url))) => {
            let (node, run_dir, trusting) =
                (config.node_name.clone(), config.paths.run_dir.clone(), access.trust_empty_lists);
            let watching = async move {
                source::kube::watch(client, &node, &run_dir, trusting, deliver).await;
            };
            tokio::spawn(watching.instrument(info_span!("source")));
            Ok(("kube", url))
        }
        (SourceKind::Kube(_), None) => anyhow::bail!("the API server was not connected to"),
        (SourceKind::Dir(path), _) => {
            source::dir::watch(path, deliver).with_context(|| format!("watch {}", path.display()))?;
            Ok(("dir", path.display().to_string()))
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
