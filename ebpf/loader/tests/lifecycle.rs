//! Pins, links and their takeover, against the kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::{fs, path::Path, process::Command, time::Instant};

use support::{Node, in_netns, serve};
use weft_ebpf::{Error, MapSizes, SocketPlane, SocketPlaneConfig, remove_pins};
use weft_ebpf_abi::{Backend4, PROTOCOL_TCP, ServiceKey4, ServiceValue};

const VIP: &str = "10.96.0.1:80";

/// One Service with one endpoint, written by hand.
fn program_service(plane: &mut SocketPlane, endpoint: &str) {
    let maps = plane.maps_mut();
    let endpoint = Backend4::new(endpoint.parse().unwrap(), 7);
    maps.backends4.set(16, &endpoint).unwrap();
    let key = ServiceKey4::address(VIP.parse().unwrap(), PROTOCOL_TCP);
    let value = ServiceValue { set_id: 3, base: 16, count: 1, flags: 0, affinity_id: 0, affinity_seconds: 0 };
    maps.services4.insert(&key, &value).unwrap();
}

fn ask(node: &Node) -> Vec<String> {
    node.run("s = tcp('10.96.0.1', 80); print(s.recv(64).decode()); print(show(s.getpeername()))", &[])
}

#[test]
fn programs_outlive_the_agent_and_are_replaced_in_place() {
    in_netns(&["10.244.0.1"], || {
        let node = Node::new();
        serve("10.244.0.1:8080");
        {
            let mut plane = SocketPlane::open(&node.config()).unwrap();
            assert!(!plane.is_attached().unwrap());
            program_service(&mut plane, "10.244.0.1:8080");
            plane.attach().unwrap();
            assert!(plane.is_attached().unwrap());
        }
        assert_eq!(ask(&node), ["10.244.0.1:8080", "10.96.0.1 80"]);

        let started = Instant::now();
        let mut next = SocketPlane::open(&node.config()).unwrap();
        let opened = started.elapsed();
        next.attach().unwrap();
        eprintln!("open {opened:?}, replace {:?}", started.elapsed().checked_sub(opened).unwrap());
        assert_eq!(ask(&node), ["10.244.0.1:8080", "10.96.0.1 80"]);
        assert_eq!(next.maps().connections.get(7).unwrap(), 2, "counted across the replacement");
        assert_eq!(next.maps().round_robin.get(3).unwrap(), 2);

        remove_pins(&node.config().bpffs).unwrap();
        assert!(!node.config().bpffs.join("weft").exists());
        drop(next);
        let refused = node.run("try: tcp('10.96.0.1', 80)\nexcept OSError as e: print('untranslated')", &[]);
        assert_eq!(refused, ["untranslated"]);
        remove_pins(&node.config().bpffs).expect("nothing there is no error");
    });
}

#[test]
fn a_cgroup_that_was_made_anew_is_attached_anew() {
    in_netns(&["10.244.0.1"], || {
        let node = Node::new();
        serve("10.244.0.1:8080");
        let mut plane = SocketPlane::open(&node.config()).unwrap();
        program_service(&mut plane, "10.244.0.1:8080");
        plane.attach().unwrap();
        drop(plane);

        node.remake_cgroup();
        let mut plane = SocketPlane::open(&node.config()).unwrap();
        plane.attach().unwrap();
        assert_eq!(ask(&node), ["10.244.0.1:8080", "10.96.0.1 80"]);
    });
}

#[test]
fn maps_of_another_size_take_over_once_they_are_filled() {
    // Connects when told to, and keeps the first connection.
    let program = "
kept = tcp('10.96.0.1', 80); print(kept.recv(64).decode(), flush=True)
for line in sys.stdin:
    s = tcp('10.96.0.1', 80); print(s.recv(64).decode(), show(kept.getpeername()), sep='|', flush=True)";
    in_netns(&["10.244.0.1", "10.244.0.2"], || {
        let node = Node::new();
        serve("10.244.0.1:8080");
        serve("10.244.0.2:8080");
        let mut plane = SocketPlane::open(&node.config()).unwrap();
        program_service(&mut plane, "10.244.0.1:8080");
        plane.attach().unwrap();
        drop(plane);
        let mut client = node.python(program, &[]);
        assert_eq!(client.hear(), "10.244.0.1:8080");
        let mut ask = || {
            client.say("go");
            client.hear()
        };

        let mut config = node.config();
        config.sizes.frontends = 1 << 10;
        config.sizes.udp_flows = 64;
        // The first of these agents ends before it has attached anything; as far as clients are concerned it never was.
        for _ in 0..2 {
            let mut plane = SocketPlane::open(&config).unwrap();
            assert_eq!(plane.maps().services4.entries().unwrap(), []);
            program_service(&mut plane, "10.244.0.2:8080");
            assert_eq!(ask(), "10.244.0.1:8080|10.96.0.1 80");
        }
        let mut plane = SocketPlane::open(&config).unwrap();
        program_service(&mut plane, "10.244.0.2:8080");
        plane.attach().unwrap();
        drop(plane);
        // What a socket remembers is not the maps' that were replaced.
        assert_eq!(ask(), "10.244.0.2:8080|10.96.0.1 80");

        let mut names = fs::read_dir(node.pins()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.any(|name| name.to_string_lossy().starts_with("new_")));
        let plane = SocketPlane::open(&config).unwrap();
        assert_eq!(plane.maps().services4.entries().unwrap().len(), 1, "these are the maps from now on");
        assert_eq!(ask(), "10.244.0.2:8080|10.96.0.1 80");
    });
}

#[test]
fn a_full_map_and_a_size_out_of_range_name_the_flag() {
    in_netns(&[], || {
        let node = Node::new();
        let mut config = node.config();
        config.sizes.frontends = 64;
        let mut plane = SocketPlane::open(&config).unwrap();
        let key = |port| ServiceKey4::node_port(port, PROTOCOL_TCP);
        let value = ServiceValue { set_id: 0, base: 0, count: 0, flags: 1, affinity_id: 0, affinity_seconds: 0 };
        let errors: Vec<Error> =
            (1..=65).filter_map(|port| plane.maps_mut().services4.insert(&key(port), &value).err()).collect();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), "map SERVICES4 is full: 64 elements; raise --ebpf-max-frontends");

        config.sizes.affinity = 0;
        let error = SocketPlane::open(&config).err().unwrap();
        assert!(matches!(&error, Error::Size { flag: "--ebpf-max-affinity", size: 0 }), "{error}");
    });
}

#[test]
fn pins_of_other_versions_go_once_the_new_programs_are_attached() {
    in_netns(&[], || {
        let node = Node::new();
        let other = node.pins().with_file_name("v4294967295");
        let foreign = node.pins().with_file_name("someone_elses");
        fs::create_dir_all(&other).unwrap();
        fs::create_dir_all(&foreign).unwrap();
        let mut plane = SocketPlane::open(&node.config()).unwrap();
        assert!(other.exists());
        plane.attach().unwrap();
        assert!(!other.exists());
        assert!(foreign.exists());
        fs::remove_dir(foreign).unwrap();
    });
}

#[test]
fn a_pinned_map_of_another_layout_is_refused_by_name() {
    in_netns(&[], || {
        let node = Node::new();
        fs::create_dir_all(node.pins()).unwrap();
        let pin = node.pins().join("CONNECTIONS");
        aya::maps::Array::<_, u32>::create(64, 0).unwrap().pin(&pin).unwrap();
        let error = SocketPlane::open(&node.config()).err().unwrap();
        let Error::Layout { pin: reported, property, found, expected } = &error else { panic!("{error}") };
        assert_eq!((reported, *property, *found, *expected), (&pin, "the value size", 4, 8));
        assert!(error.to_string().contains("weft cleanup"), "{error}");
    });
}

#[test]
fn paths_on_the_wrong_filesystem_are_named() {
    let node = Node::new();
    let directory = tempfile::tempdir().unwrap();
    let not_bpffs = directory.path().join("does/not/exist");
    let config = SocketPlaneConfig { bpffs: not_bpffs.clone(), ..node.config() };
    let error = SocketPlane::open(&config).err().unwrap();
    assert!(matches!(&error, Error::NotBpffs { path } if *path == not_bpffs));
    assert!(!not_bpffs.exists(), "nothing is made outside a bpffs");

    let config = SocketPlaneConfig { cgroup_root: directory.path().to_owned(), ..node.config() };
    let error = SocketPlane::open(&config).err().unwrap();
    assert!(matches!(&error, Error::NotCgroup2 { path } if path == directory.path()));
    assert!(!node.pins().exists(), "nothing is pinned");

    let config = SocketPlaneConfig { cgroup_root: Path::new("/nonexistent").to_owned(), ..node.config() };
    let error = SocketPlane::open(&config).err().unwrap();
    assert!(error.to_string().contains("open cgroup /nonexistent"), "{error}");
}

#[test]
fn missing_privileges_are_named() {
    // The test runs itself again in a process without the capabilities, with the paths in the environment.
    let path = |name| std::env::var_os(name).map(Into::into);
    if let (Some(cgroup_root), Some(bpffs)) = (path("WEFT_TEST_CGROUP"), path("WEFT_TEST_BPFFS")) {
        let error =
            SocketPlane::open(&SocketPlaneConfig { cgroup_root, bpffs, sizes: MapSizes::default() }).err().unwrap();
        assert!(error.is_permission_denied(), "{error}");
        for capability in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"] {
            assert!(error.to_string().contains(capability), "{error}");
        }
        return;
    }
    for lost in ["-sys_admin,-bpf", "-sys_admin,-net_admin"] {
        let node = Node::new();
        let config = node.config();
        let output = Command::new("setpriv")
            .args(["--bounding-set", lost, "--inh-caps", lost])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "missing_privileges_are_named"])
            .env("WEFT_TEST_CGROUP", &config.cgroup_root)
            .env("WEFT_TEST_BPFFS", &config.bpffs)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "without {lost}: {text}");
        assert!(!node.pins().exists(), "nothing was changed");
    }
}
