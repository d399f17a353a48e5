//! A small CRI client: what kubelet asks of containerd, one blocking call each.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec, ImageStatusRequest,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StatusRequest, StopPodSandboxRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Values of `NamespaceMode`.
pub(crate) const POD_NAMESPACE: i32 = 0;
const CONTAINER_NAMESPACE: i32 = 1;
pub(crate) const NODE_NAMESPACE: i32 = 2;

/// A connection to containerd; calls may be made from several threads.
#[derive(Clone)]
pub(crate) struct Cri {
    runtime: Arc<Runtime>,
    channel: Channel,
    /// cgroup of the pods, from the root of every hierarchy.
    cgroup_parent: String,
    counter: Arc<AtomicU64>,
}

/// A pod to be made; kubelet's PodSandboxConfig in short.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodSpec {
    pub(crate) name: String,
    pub(crate) ports: Vec<k8s_cri::v1::PortMapping>,
    pub(crate) annotations: HashMap<String, String>,
    /// In the node's network, without calling any plugin.
    pub(crate) host_network: bool,
    pub(crate) privileged: bool,
    /// Where containers write the log files they name; empty: nowhere.
    pub(crate) log_directory: String,
}

impl PodSpec {
    /// A pod as most are.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// A pod that was made.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// Connects. Pods get cgroups below `cgroup_parent`.
    pub(crate) fn connect(socket: &Path, cgroup_parent: String) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        // It connects with the first call, and again after containerd was restarted.
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Ok(Self { runtime: Arc::new(runtime), channel, cgroup_parent, counter: Arc::default() })
    }

    /// Whether the runtime says that the network is ready, and its words if not.
    pub(crate) fn network_ready(&self) -> Result<()> {
        let request = StatusRequest { verbose: false };
        let response = self.runtime.block_on(self.client().status(request))?.into_inner();
        let conditions = response.status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|condition| condition.r#type == "NetworkReady");
        match network.context("no condition NetworkReady")? {
            ready if ready.status => Ok(()),
            other => bail!("{}: {}", other.reason, other.message),
        }
    }

    /// Whether CRI knows an image.
    pub(crate) fn has_image(&self, name: &str) -> Result<()> {
        let request = ImageStatusRequest { image: Some(image(name)), verbose: false };
        let mut client = ImageServiceClient::new(self.channel.clone());
        let response = self.runtime.block_on(client.image_status(request))?.into_inner();
        response.image.map(drop).with_context(|| format!("CRI does not know image {name}"))
    }

    /// RunPodSandbox: the network is there when it returns.
    pub(crate) fn run_pod(&self, spec: &PodSpec) -> Result<Sandbox> {
        let config = self.sandbox_config(spec);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let response = self.runtime.block_on(self.client().run_pod_sandbox(request));
        let id = response.with_context(|| format!("RunPodSandbox {}", spec.name))?.into_inner().pod_sandbox_id;
        Ok(Sandbox { id, config })
    }

    /// Its address; empty in the host's network.
    pub(crate) fn pod_address(&self, sandbox: &Sandbox) -> Result<String> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
        let response = self.runtime.block_on(self.client().pod_sandbox_status(request)).context("PodSandboxStatus")?;
        Ok(response.into_inner().status.and_then(|status| status.network).unwrap_or_default().ip)
    }

    /// Creates and starts a container in a pod, and returns its ID.
    pub(crate) fn run_container(&self, sandbox: &Sandbox, config: ContainerConfig) -> Result<String> {
        let name = config.metadata.clone().unwrap_or_default().name;
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let created = self.runtime.block_on(self.client().create_container(create));
        let id = created.with_context(|| format!("CreateContainer {name}"))?.into_inner().container_id;
        let start = StartContainerRequest { container_id: id.clone() };
        self.runtime
            .block_on(self.client().start_container(start))
            .with_context(|| format!("StartContainer {name}"))?;
        Ok(id)
    }

    /// ExecSync: runs a program in a container and returns what it printed.
    pub(crate) fn exec(&self, container: &str, command: &[String]) -> Result<String> {
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd: command.to_vec(), timeout: 60 };
        let response = self.runtime.block_on(self.client().exec_sync(request)).context("ExecSync")?.into_inner();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if response.exit_code == 0 {
            return Ok(text(response.stdout));
        }
        bail!("{command:?} in container: exit code {}: {}", response.exit_code, text(response.stderr))
    }

    /// StopPodSandbox: the network is gone when it returns. It may be repeated.
    pub(crate) fn stop_pod(&self, sandbox: &Sandbox) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.block_on(self.client().stop_pod_sandbox(request)).context("StopPodSandbox").map(drop)
    }

    /// RemovePodSandbox. It may be repeated.
    pub(crate) fn remove_pod(&self, sandbox: &Sandbox) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.block_on(self.client().remove_pod_sandbox(request)).context("RemovePodSandbox").map(drop)
    }

    /// Names of the pods that are ready, sorted.
    pub(crate) fn ready_pods(&self) -> Result<Vec<String>> {
        let list = self.runtime.block_on(self.client().list_pod_sandbox(ListPodSandboxRequest { filter: None }));
        let pods = list.context("ListPodSandbox")?.into_inner().items;
        let ready = pods.into_iter().filter(|pod| pod.state == PodSandboxState::SandboxReady as i32);
        let mut names: Vec<String> = ready.map(|pod| pod.metadata.unwrap_or_default().name).collect();
        names.sort();
        Ok(names)
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    fn sandbox_config(&self, spec: &PodSpec) -> PodSandboxConfig {
        let uid = format!("{}-{}", spec.name, self.counter.fetch_add(1, Ordering::Relaxed));
        let network = if spec.host_network { NODE_NAMESPACE } else { POD_NAMESPACE };
        let namespaces =
            NamespaceOption { network, pid: CONTAINER_NAMESPACE, ipc: POD_NAMESPACE, ..NamespaceOption::default() };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.clone(),
                uid: uid.clone(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: if spec.host_network { String::new() } else { spec.name.clone() },
            log_directory: spec.log_directory.clone(),
            port_mappings: spec.ports.clone(),
            annotations: spec.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod{uid}", self.cgroup_parent),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    privileged: spec.privileged,
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }
}

/// A container that runs a program of an image.
pub(crate) fn container(name: &str, image_name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(image(image_name)),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..ContainerConfig::default()
    }
}

fn image(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), ..ImageSpec::default() }
}
