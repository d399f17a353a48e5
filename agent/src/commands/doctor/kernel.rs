//! What the kernel can, and what this process may do with it.
//!
//! Whether VXLAN and nftables are there is tried, in a network namespace of its own that goes away at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use weft_netlink::{Netlink, Netns, NftQuery, VxlanSpec};

use super::{
    Context,
    finding::{Area, Finding},
};
use crate::{cgroup, commands::programs, config::ProxyMode, privileges};

const AREA: Area = Area::Kernel;

/// The first with all that the socket programs need (bpf_link for cgroups, CAP_BPF).
const EBPF_SINCE: (u32, u32) = (5, 8);

/// All of them.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mode = context.outline.proxy.as_ref().map_or(ProxyMode::Best, |proxy| proxy.mode);
    let mut findings = vec![version(release.trim()), of_this_process(context, mode)];
    if context.wants("proxy") && matches!(mode, ProxyMode::Best | ProxyMode::Ebpf) {
        findings.extend(of_ebpf(context));
    }
    findings.extend(tried(context.wants("overlay")));
    findings.push(nft_program(programs::output("nft", &["--version"])));
    let variants = ["nft", "legacy"].map(|variant| (variant, rules(variant)));
    findings.push(iptables(&variants));
    findings.push(conntrack(Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists()));
    findings
}

fn version(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= EBPF_SINCE {
        return Finding::ok(AREA, "kernel-version", release);
    }
    let (major, minor) = EBPF_SINCE;
    Finding::warning(
        AREA,
        "kernel-version",
        format!("{release} has no ebpf mode, which needs {major}.{minor}"),
        "the agent uses nftables instead; with a newer kernel Services cost less",
    )
}

/// What the ebpf mode needs.
fn of_ebpf(context: &Context) -> [Finding; 3] {
    let flags = &context.args.agent.proxy;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let syscall = Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists();
    [
        bpf(syscall, Path::new("/sys/kernel/btf/vmlinux").exists()),
        cgroup2(flags.cgroup_root.clone().map_or_else(cgroup::mounted_root, Ok)),
        bpffs(&mounts, &flags.bpffs),
    ]
}

fn of_this_process(context: &Context, mode: ProxyMode) -> Finding {
    let components = context.outline.components;
    let needed = privileges::missing(&privileges::needed(components, mode));
    let for_the_best = privileges::missing(&privileges::needed(components, ProxyMode::Ebpf));
    capabilities(&needed, if mode == ProxyMode::Best { &for_the_best } else { &[] })
}

/// `needed` and `for_the_best` mode are missing.
fn capabilities(needed: &[&str], for_the_best: &[&str]) -> Finding {
    let advice = "run as root, or in a container with the capabilities of manifests/";
    match (needed, for_the_best) {
        ([], []) => Finding::ok(AREA, "capabilities", "all that the agent needs"),
        ([], missing) => {
            let seen = format!("{}, so that there is no ebpf mode", missing.join("; "));
            Finding::warning(AREA, "capabilities", seen, advice)
        }
        (missing, _) => Finding::problem(AREA, "capabilities", missing.join("; "), advice),
    }
}

fn bpf(syscall: bool, btf: bool) -> Finding {
    match (syscall, btf) {
        (true, true) => Finding::ok(AREA, "bpf", "the kernel has BPF and BTF"),
        (true, false) => Finding::note(AREA, "bpf", "the kernel has BPF, but not BTF, which Weft does not need"),
        (false, _) => {
            let advice = "use a kernel with CONFIG_BPF_SYSCALL, or --proxy-mode=nftables";
            Finding::warning(AREA, "bpf", "the kernel has no BPF, so that there is no ebpf mode", advice)
        }
    }
}

fn cgroup2(root: anyhow::Result<PathBuf>) -> Finding {
    match root {
        Ok(root) if root.join("cgroup.procs").exists() => {
            Finding::ok(AREA, "cgroup2", format!("mounted at {}", root.display()))
        }
        Ok(root) => {
            let seen = format!("{} is no cgroup2 directory (it has no cgroup.procs)", root.display());
            Finding::problem(AREA, "cgroup2", seen, "give the mounted one as --cgroup-root")
        }
        Err(_) => {
            let advice = "mount -t cgroup2 none /sys/fs/cgroup, or live with the nftables mode";
            Finding::warning(AREA, "cgroup2", "not mounted, so that there is no ebpf mode", advice)
        }
    }
}

/// `mountinfo`: proc_pid_mountinfo(5).
fn bpffs(mountinfo: &str, wanted: &Path) -> Finding {
    let mounted = mountinfo.lines().any(|line| {
        let (left, right) = line.split_once(" - ").unwrap_or_default();
        right.starts_with("bpf ") && left.split(' ').nth(4).is_some_and(|at| wanted.starts_with(at))
    });
    if mounted {
        return Finding::ok(AREA, "bpffs", format!("mounted at {}", wanted.display()));
    }
    let advice = format!("mount -t bpf bpf {}, or live with the nftables mode", wanted.display());
    Finding::warning(AREA, "bpffs", format!("not mounted at {}, so no ebpf mode", wanted.display()), advice)
}

/// Makes a VXLAN device and asks nftables, where nobody notices. Without a pod network of ours the first does not matter.
fn tried(overlay: bool) -> Vec<Finding> {
    let spec = VxlanSpec {
        name: "probe".to_owned(),
        vni: 1,
        local: None,
        underlay: None,
        port: 8472,
        mtu: None,
        mac: None,
        learning: false,
        gbp: false,
    };
    let try_both = || {
        let vxlan = Netlink::open().and_then(|netlink| netlink.create_vxlan(&spec));
        let nftables = NftQuery::open().and_then(|mut query| query.generation());
        (vxlan.map(drop), nftables.map(drop))
    };
    match Netns::create().and_then(|netns| netns.run(try_both)) {
        Ok((vxlan, nftables)) => {
            let vxlan = overlay.then(|| feature("vxlan", vxlan, "load the module vxlan, or use the backend host-gw"));
            let nftables = feature("nftables", nftables, "load the module nf_tables, or use --proxy-mode=iptables");
            vxlan.into_iter().chain([nftables]).collect()
        }
        Err(error) => {
            let seen = format!("VXLAN and nftables could not be tried in a network namespace of their own: {error}");
            vec![Finding::note(AREA, "features", seen)]
        }
    }
}

fn feature(check: &'static str, tried: weft_netlink::Result<()>, advice: &str) -> Finding {
    match tried {
        Ok(()) => Finding::ok(AREA, check, "the kernel has it"),
        Err(error) => Finding::problem(AREA, check, format!("the kernel refuses: {error}"), advice),
    }
}

fn nft_program(version: Option<String>) -> Finding {
    match version {
        Some(version) => Finding::ok(AREA, "nft", version.trim().to_owned()),
        None => {
            let advice = "install it, or use --proxy-mode=iptables; Weft's image has it";
            Finding::warning(AREA, "nft", "the program nft is not on this node", advice)
        }
    }
}

/// How many rules a variant of iptables has in both families; `None`: it is not installed.
fn rules(variant: &str) -> Option<usize> {
    let families = ["iptables", "ip6tables"].map(|base| programs::output(&format!("{base}-{variant}-save"), &[]));
    let count = |text: &String| text.lines().filter(|line| line.starts_with("-A ")).count();
    families.iter().flatten().map(count).reduce(|left, right| left + right)
}

fn iptables(variants: &[(&str, Option<usize>)]) -> Finding {
    let known: Vec<_> = variants.iter().filter_map(|(variant, rules)| Some((*variant, (*rules)?))).collect();
    let in_use: Vec<_> = known.iter().filter(|(_, rules)| *rules > 0).collect();
    let list = known.iter().map(|(variant, rules)| format!("{variant} ({rules} rules)")).collect::<Vec<_>>().join(", ");
    match (known.len(), in_use.len()) {
        (0, _) => Finding::note(AREA, "iptables", "not installed; only --proxy-mode=iptables needs it"),
        (_, 2) => {
            let advice =
                "find out who uses the legacy one (iptables-legacy-save): each variant drops what the other accepts";
            Finding::warning(AREA, "iptables", format!("both variants have rules: {list}"), advice)
        }
        _ => Finding::ok(AREA, "iptables", list),
    }
}

fn conntrack(there: bool) -> Finding {
    match there {
        true => Finding::ok(AREA, "conntrack", "loaded"),
        false => Finding::note(AREA, "conntrack", "not loaded yet; the first rule that needs it loads it"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, verdict) in [
            ("6.12.9-amd64", Verdict::Ok),
            ("5.10.0", Verdict::Ok),
            ("5.8", Verdict::Ok),
            ("5.4.0-150-generic", Verdict::Warning),
            ("", Verdict::Warning),
        ] {
            assert_eq!(version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn bpffs_is_found_where_it_is_wanted() {
        let mounts = "35 23 0:30 / /sys/fs/bpf rw shared:9 - bpf bpf rw\n36 23 0:31 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(bpffs(mounts, Path::new("/sys/fs/bpf")).verdict, Verdict::Ok);
        assert_eq!(bpffs(mounts, Path::new("/sys/fs/bpf/below")).verdict, Verdict::Ok);
        assert_eq!(bpffs(mounts, Path::new("/run/bpf")).verdict, Verdict::Warning);
    }

    #[test]
    fn two_iptables_in_use_are_one_too_many() {
        for (nft, legacy, verdict) in [
            (None, None, Verdict::Note),
            (Some(3), None, Verdict::Ok),
            (Some(3), Some(0), Verdict::Ok),
            (Some(0), Some(7), Verdict::Ok),
            (Some(3), Some(7), Verdict::Warning),
        ] {
            assert_eq!(iptables(&[("nft", nft), ("legacy", legacy)]).verdict, verdict, "{nft:?} {legacy:?}");
        }
    }

    #[test]
    fn missing_parts_are_said() {
        assert_eq!(bpf(true, false).verdict, Verdict::Note);
        assert_eq!(bpf(false, false).verdict, Verdict::Warning);
        assert_eq!(capabilities(&["CAP_NET_ADMIN is missing"], &["CAP_BPF is missing"]).verdict, Verdict::Problem);
        assert_eq!(capabilities(&[], &["CAP_BPF is missing"]).verdict, Verdict::Warning);
        assert_eq!(capabilities(&[], &[]).verdict, Verdict::Ok);
        assert_eq!(cgroup2(Ok("/nowhere".into())).verdict, Verdict::Problem);
        assert_eq!(cgroup2(Err(anyhow::anyhow!("none"))).verdict, Verdict::Warning);
        assert_eq!(nft_program(None).verdict, Verdict::Warning);
    }
}
