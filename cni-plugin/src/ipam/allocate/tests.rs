use std::fs;

use tempfile::TempDir;

use super::*;
use crate::teardown::Teardown;

const POD: Owner<'_> = Owner { container_id: "pod", ifname: "eth0" };

fn owner(container_id: &str) -> Owner<'_> {
    Owner { container_id, ifname: "eth0" }
}

fn pool(directory: &TempDir, subnets: &[&str]) -> Pool {
    let subnets: Vec<_> = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    Pool::new(directory.path().join("weft"), RangeSet::of_subnets(&subnets).unwrap())
}

fn addresses(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(|lease| lease.address.to_string()).collect()
}

fn files(directory: &TempDir) -> Vec<String> {
    let listing = fs::read_dir(directory.path().join("weft")).unwrap();
    let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn section_7_files_are_host_locals() {
    let directory = TempDir::new().unwrap();
    let leases = pool(&directory, &["10.244.1.1/24", "fd44::1/64"]).allocate(POD, &[]).unwrap();
    assert_eq!(addresses(&leases), ["10.244.1.2/24", "fd44::2/64"]);
    assert_eq!(leases[0].gateway.to_string(), "10.244.1.1");
    assert_eq!(files(&directory), ["10.244.1.2", "fd44::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
    let read = |name: &str| fs::read_to_string(directory.path().join("weft").join(name)).unwrap();
    assert_eq!((read("10.244.1.2").as_str(), read("last_reserved_ip.1").as_str()), ("pod\r\neth0", "fd44::2"));
}

#[test]
fn section_7_addresses_are_not_reused_at_once() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/29"]);
    let next = |id| addresses(&pool.allocate(owner(id), &[]).unwrap()).remove(0);
    assert_eq!((next("a"), next("b")), ("10.244.1.2/29".into(), "10.244.1.3/29".into()));
    release(&directory.path().join("weft"), owner("a")).unwrap();
    assert_eq!(
        (next("c"), next("d"), next("e")),
        ("10.244.1.4/29".into(), "10.244.1.5/29".into(), "10.244.1.6/29".into())
    );
    assert_eq!(next("f"), "10.244.1.2/29");
    assert!(matches!(pool.allocate(owner("g"), &[]), Err(Error::Exhausted(_))));
    release(&directory.path().join("weft"), owner("f")).unwrap();
    assert_eq!(next("g"), "10.244.1.2/29");
}

#[test]
fn the_last_reserved_address_is_written_whole() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/24"]);
    for address in ["10.244.1.100", "10.244.1.9", "10.244.1.77"] {
        pool.allocate(owner(address), &[address.parse().unwrap()]).unwrap();
        let text = fs::read_to_string(directory.path().join("weft/last_reserved_ip.0")).unwrap();
        assert_eq!(text, address);
    }
}

#[test]
fn a4_one_address_per_attachment_and_set() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/24"]);
    pool.allocate(POD, &[]).unwrap();
    assert!(matches!(pool.allocate(POD, &[]), Err(Error::Duplicate { .. })));
    let second = Owner { ifname: "net1", ..POD };
    assert_eq!(addresses(&pool.allocate(second, &[]).unwrap()), ["10.244.1.3/24"]);
    release(&directory.path().join("weft"), POD).unwrap();
    assert!(files(&directory).contains(&"10.244.1.3".to_owned()));
}

#[test]
fn section_7_requested_addresses_are_given_or_all_is_undone() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/24", "fd44::/64"]);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let leases = pool.allocate(POD, &[ip("fd44::9"), ip("10.244.1.9")]).unwrap();
    assert_eq!(addresses(&leases), ["10.244.1.9/24", "fd44::9/64"]);
    for (requested, reason) in [
        (vec![ip("10.244.1.9")], "not available"),
        (vec![ip("10.244.1.1")], "gateway"),
        (vec![ip("10.244.1.50"), ip("10.99.0.1")], "failed to allocate all requested IPs: 10.99.0.1"),
        (vec![ip("fd44::9")], "not available"),
    ] {
        let error = pool.allocate(owner("other"), &requested).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let held = files(&directory);
        assert_eq!(held, ["10.244.1.9", "fd44::9", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
    }
}

#[test]
fn section_7_an_existing_directory_is_taken_over() {
    let directory = TempDir::new().unwrap();
    let network = directory.path().join("weft");
    fs::create_dir(&network).unwrap();
    for (name, text) in [
        ("10.244.1.2", "old-format-id"),
        ("10.244.1.3", "someone\r\neth0"),
        ("10.244.1.4", "someone\neth0\n"),
        ("last_reserved_ip.0", "10.244.1.3"),
        ("notes", "not an address"),
    ] {
        fs::write(network.join(name), text).unwrap();
    }
    let pool = pool(&directory, &["10.244.1.0/24"]);
    assert_eq!(addresses(&pool.allocate(POD, &[]).unwrap()), ["10.244.1.5/24"]);
    release(&network, owner("old-format-id")).unwrap();
    release(&network, owner("nobody")).unwrap();
    assert_eq!(files(&directory), ["10.244.1.3", "10.244.1.4", "10.244.1.5", "last_reserved_ip.0", "lock", "notes"]);
}

#[test]
fn d4_an_address_that_went_to_another_stays_with_it() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/24"]);
    let leases = pool.allocate(POD, &[]).unwrap();
    release(&directory.path().join("weft"), POD).unwrap();
    pool.allocate(owner("later"), &[leases[0].address.ip()]).unwrap();
    release(&directory.path().join("weft"), POD).unwrap();
    Pool::give_back(&directory.path().join("weft"), POD, &leases).unwrap();
    assert!(files(&directory).contains(&"10.244.1.2".to_owned()));
}

#[test]
fn d1_release_without_a_directory_is_success() {
    let directory = TempDir::new().unwrap();
    release(&directory.path().join("none"), POD).unwrap();
    assert!(!directory.path().join("none").exists());
}

/// A plugin killed after it gave the scratch file the address's name, and before it took away the other one.
#[test]
fn r1_9_what_a_killed_plugin_left_is_not_written_into() {
    let directory = TempDir::new().unwrap();
    let (network, pool) = (directory.path().join("weft"), pool(&directory, &["10.244.1.0/24"]));
    pool.allocate(POD, &[]).unwrap();
    fs::hard_link(network.join("10.244.1.2"), network.join("weft-cni.tmp")).unwrap();
    pool.allocate(owner("next"), &[]).unwrap();
    assert_eq!(fs::read_to_string(network.join("10.244.1.2")).unwrap(), "pod\r\neth0");
    assert_eq!(fs::read_to_string(network.join("10.244.1.3")).unwrap(), "next\r\neth0");
    assert_eq!(files(&directory), ["10.244.1.2", "10.244.1.3", "last_reserved_ip.0", "lock"]);
}

#[test]
fn g3_only_what_no_valid_attachment_holds_is_collected() {
    let directory = TempDir::new().unwrap();
    let network = directory.path().join("weft");
    fs::create_dir(&network).unwrap();
    let valid = [("kept".to_owned(), "eth0".to_owned())].into_iter().collect();
    for (name, text) in [
        ("10.244.1.2", "kept\r\neth0"),
        ("10.244.1.3", "kept"),
        ("10.244.1.4", "kept\r\nnet1"),
        ("10.244.1.5", "gone\r\neth0"),
        ("10.244.1.6", "gone"),
        // host-local makes the file first and fills it then.
        ("10.244.1.7", ""),
        ("fd44::2", "gone\r\neth0"),
        ("weft-cni.tmp", "gone\r\neth0"),
        ("notes", "not an address"),
    ] {
        fs::write(network.join(name), text).unwrap();
    }
    let mut failures = Teardown::default();
    Store::open(&network).unwrap().retain(&valid, &mut failures).unwrap();
    failures.finish().unwrap();
    assert_eq!(files(&directory), ["10.244.1.2", "10.244.1.3", "lock", "notes"]);
}

#[test]
fn s2_room_is_found_without_changing_anything() {
    let directory = TempDir::new().unwrap();
    let pool = pool(&directory, &["10.244.1.0/30"]);
    pool.check_room().unwrap();
    assert!(!directory.path().join("weft").exists());
    pool.allocate(POD, &[]).unwrap();
    let before = files(&directory);
    assert!(matches!(pool.check_room(), Err(Error::Exhausted(_))));
    assert_eq!(files(&directory), before);
}

#[test]
fn addresses_of_pods_of_flannels_time_are_left_to_them() {
    let directory = TempDir::new().unwrap();
    let flannels = directory.path().join("cbr0");
    fs::create_dir(&flannels).unwrap();
    fs::write(flannels.join("10.244.1.2"), "old\r\neth0").unwrap();
    let others = [flannels.clone(), directory.path().join("never-made")];
    let pool = pool(&directory, &["10.244.1.0/29"]).beside(&others);
    assert_eq!(addresses(&pool.allocate(owner("new"), &[]).unwrap()), ["10.244.1.3/29"]);
    let wanted = ["10.244.1.2".parse().unwrap()];
    assert!(matches!(pool.allocate(owner("other"), &wanted), Err(Error::Requested { .. })));
    release(&flannels, owner("old")).unwrap();
    assert_eq!(addresses(&pool.allocate(owner("other"), &wanted).unwrap()), ["10.244.1.2/29"]);
    assert!(!others[1].exists());
}

/// A power failure leaves the names of the last files, and nothing or zeros in them; DEL frees what names its container only.
#[test]
fn r1_9_a_file_that_names_nobody_reserves_nothing() {
    let directory = TempDir::new().unwrap();
    let network = directory.path().join("weft");
    fs::create_dir(&network).unwrap();
    for (name, text) in [("10.244.1.2", ""), ("10.244.1.3", "\0\0\0\0"), ("10.244.1.4", "pod\r\neth0")] {
        fs::write(network.join(name), text).unwrap();
    }
    let pool = pool(&directory, &["10.244.1.0/29"]);
    assert!(pool.check_room().is_ok());
    let next = |id| addresses(&pool.allocate(owner(id), &[]).unwrap()).remove(0);
    assert_eq!(
        (next("a"), next("b"), next("c")),
        ("10.244.1.2/29".into(), "10.244.1.3/29".into(), "10.244.1.5/29".into())
    );
    let read = |name: &str| fs::read_to_string(network.join(name)).unwrap();
    assert_eq!((read("10.244.1.2").as_str(), read("10.244.1.3").as_str()), ("a\r\neth0", "b\r\neth0"));
    assert!(!files(&directory).contains(&"weft-cni.tmp".to_owned()));
}
