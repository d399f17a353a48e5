use std::{panic, path::Path, thread};

use weft_netlink::{Netlink, Netns, NetnsGuard, sysctl};

#[test]
fn current_and_new_namespaces_differ_and_ids_tell() {
    let here = Netns::current().unwrap();
    let other = Netns::create().unwrap();
    assert_eq!(here.id().unwrap(), Netns::current().unwrap().id().unwrap());
    assert_ne!(here.id().unwrap(), other.id().unwrap());
    let inside = other.run(|| Netns::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(inside, other.id().unwrap());
}

#[test]
fn guard_comes_back_on_drop_and_on_panic() {
    thread::spawn(|| {
        let home = Netns::current().unwrap().id().unwrap();
        let other = Netns::create().unwrap();
        {
            let _guard = NetnsGuard::enter(&other).unwrap();
            assert_eq!(Netns::current().unwrap().id().unwrap(), other.id().unwrap());
        }
        assert_eq!(Netns::current().unwrap().id().unwrap(), home);
        let panicked = panic::catch_unwind(|| {
            let _guard = NetnsGuard::enter(&other).unwrap();
            panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(Netns::current().unwrap().id().unwrap(), home);
    })
    .join()
    .unwrap();
}

#[test]
fn a_socket_stays_in_the_namespace_it_was_opened_in() {
    let other = Netns::create().unwrap();
    let netlink = other.run(Netlink::open).unwrap().unwrap();
    let links = netlink.links().unwrap();
    assert_eq!(links.len(), 1, "{links:?}");
    assert!(links[0].loopback);
}

#[test]
fn what_is_no_namespace_is_refused() {
    let missing = Netns::open("/run/netns/weft-test-no-such-name").unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let file = Netns::open("/etc/passwd").unwrap_err();
    assert!(file.to_string().contains("not a namespace"), "{file}");
    let of_another_kind = Netns::open("/proc/self/ns/uts").unwrap();
    assert!(NetnsGuard::enter(&of_another_kind).is_err());
}

#[test]
fn named_namespaces_are_seen_by_others_and_go_away() {
    let name = format!("weft-test-{}", std::process::id());
    let made = Netns::create_named(&name).unwrap();
    let path = Path::new("/run/netns").join(&name);
    assert_eq!(Netns::open(&path).unwrap().id().unwrap(), made.id().unwrap());
    assert!(Netns::create_named(&name).unwrap_err().is_exists());
    Netns::delete_named(&name).unwrap();
    Netns::delete_named(&name).unwrap();
    assert!(!path.exists());
}

#[test]
fn sysctls_follow_the_calling_thread() {
    let other = Netns::create().unwrap();
    let parameter = "net/ipv4/conf/lo/forwarding";
    let here = sysctl::get(parameter).unwrap();
    other
        .run(|| {
            sysctl::set(parameter, "0").unwrap();
            assert_eq!(sysctl::set(parameter, "1").unwrap(), sysctl::Changed::Yes);
            assert_eq!(sysctl::set(parameter, "1").unwrap(), sysctl::Changed::No);
            assert_eq!(sysctl::get(parameter).unwrap(), "1");
        })
        .unwrap();
    assert_eq!(sysctl::get(parameter).unwrap(), here);
    assert!(sysctl::get("net/ipv4/conf/weft-none/forwarding").unwrap_err().is_not_found());
}
