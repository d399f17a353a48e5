//! A configuration as far as it can be read: some of it may be wrong, or not there yet.

use super::{
    Components, Config, KubeAccess, LogConfig, Mistake, Mistakes, OverlayConfig, ProxyConfig, ServersConfig, Settings,
    SourceKind, kube_access, kube_proxy::KubeProxyFile, node_name, overlay, proxy, refuse, servers,
    settings::KubeProxyDocument, source,
};
use crate::cli::AgentArgs;

/// Each part of the configuration; `None` where there is a mistake in it.
pub(crate) struct Outline {
    /// Parts to run; all of them if the list has a mistake, so that those of all are found.
    pub(crate) components: Components,
    /// How to reach the API server, whether objects come from there or not.
    pub(crate) access: KubeAccess,
    /// Where objects come from.
    pub(crate) source: Option<SourceKind>,
    /// Name of this node.
    pub(crate) node_name: Option<String>,
    /// Services.
    pub(crate) proxy: Option<ProxyConfig>,
    /// Pod network.
    pub(crate) overlay: Option<OverlayConfig>,
    /// Health and metrics.
    pub(crate) servers: Option<ServersConfig>,
    /// What is wrong.
    pub(crate) mistakes: Vec<Mistake>,
    log: LogConfig,
    settings: Settings,
    notices: Vec<String>,
}

impl Outline {
    /// Reads flags and the files they name, noting every mistake.
    pub(crate) fn read(args: &AgentArgs) -> Self {
        let mut mistakes = Mistakes::default();
        let path = args.proxy.kube_proxy_config.as_deref();
        let document = path.and_then(|path| KubeProxyDocument::read(path, &mut mistakes)).unwrap_or_default();
        let mut settings = Settings::resolve(&args.given, &document, &mut mistakes);
        refuse(args, &mut mistakes);
        let servers = servers::read(&args.given, &mut settings, &mut mistakes);
        let log = servers::log(&settings, &mut mistakes);
        let file = KubeProxyFile::of(document);

        let components = mistakes.check("--components", &args.components, Components::parse(&args.components));
        let components = components.unwrap_or(Components::ALL);
        let access = kube_access(args, &file);
        let source = source(args, access.clone(), &mut mistakes);
        let node_name = node_name(args, &file, &mut settings, &mut mistakes);
        let proxy = proxy::read(args, &file, &mut mistakes);
        let overlay = if components.overlay { overlay::read(args, access.clone(), &mut mistakes) } else { None };
        let (mistakes, notices) = mistakes.into_lists();
        Self { components, access, node_name, proxy, overlay, servers, mistakes, source, log, settings, notices }
    }

    /// The whole configuration.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn complete(self, args: &AgentArgs) -> Result<Config, Vec<Mistake>> {
        let Self { components, log, settings, notices, overlay, .. } = self;
        match (self.source, self.node_name, self.proxy, self.servers) {
            (Some(source), Some(node_name), Some(proxy), Some(servers)) if self.mistakes.is_empty() => Ok(Config {
                node_name,
                components,
                source,
                proxy,
                overlay,
                servers,
                log,
                oom_score_adj: settings.whole("oomScoreAdj"),
                paths: args.paths.clone(),
                settings,
                notices,
            }),
            _ => Err(self.mistakes),
        }
    }
}
