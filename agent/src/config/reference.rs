//! `docs/configuration.md`, written from the command line and the table of fields, so that it is never out of date.

use std::{env, fmt::Write, fs, path::Path};

use super::{Effect, FIELDS, Kind};
use crate::cli::{self, DEPRECATED, REFUSED, WITHOUT_EFFECT};

/// Set to anything, it writes the file instead of comparing it.
const UPDATE: &str = "WEFT_UPDATE_DOCS";

const HEAD: &str = "# Configuration

Written from the code by `WEFT_UPDATE_DOCS=1 cargo test -p weft config::reference`; a test fails when it is out of date.

`weft agent` takes kube-proxy's and flanneld's flags, a KubeProxyConfiguration file (`--kube-proxy-config`, or `--config`)
as kubeadm writes it, and flannel's `net-conf.json` (`--net-conf`). See what comes out, and where each value is from, with

```sh
weft agent --print-config            # with the flags the agent gets; -o json for programs
```

* A flag wins over the file. (kube-proxy ignores most flags when it has a file; Weft says in its log where the two differ.)
* flanneld's flags can be given in the environment: `FLANNELD_IFACE=eth0` is `--iface=eth0`. The command line wins.
* `-iface=eth0` and `--ip_masq`, which Go understands, are understood here too.
* Every flag of flanneld and of kube-proxy on Linux is accepted. One that has no meaning here does nothing, and the log says so.
* Unknown fields of the file are warned of, with file and line. Impossible values are told all together, with exit code 2.
* The files are watched. `nodePortAddresses` (unless that turns 127.0.0.1 on or off), `iptables.syncPeriod`,
  `nftables.syncPeriod` and `logging.verbosity` take effect at once. Everything else, and `net-conf.json`, needs a restart,
  which log, `weft status` and an event on the Node say. A file with mistakes changes nothing; `weft status` tells them.
";

#[test]
fn docs_configuration_md_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let now = document();
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, now).unwrap();
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "docs/configuration.md is out of date: run {UPDATE}=1 cargo test -p weft config::reference");
}

#[test]
fn every_flag_of_the_table_is_one_of_the_command_line() {
    let command = cli::command();
    let agent = command.find_subcommand("agent").unwrap();
    for field in FIELDS.iter().filter(|field| !field.flag.is_empty()) {
        assert!(agent.get_arguments().any(|arg| arg.get_long() == Some(field.flag)), "--{}", field.flag);
    }
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    flags(&mut text);
    fields(&mut text);
    let _ = writeln!(
        text,
        "\n## Flags that do nothing\n\nAccepted, so that a command line of kube-proxy or flanneld works; the log says it once.\n\n| flag | why |\n|---|---|"
    );
    let mut listed: Vec<(&str, &str)> = WITHOUT_EFFECT.iter().map(|(flag, _, why)| (*flag, *why)).collect();
    let unused = FIELDS.iter().filter(|field| !field.flag.is_empty());
    listed.extend(unused.filter_map(|field| match field.effect {
        Effect::None(why) => Some((field.flag, why)),
        Effect::Used(_) => None,
    }));
    listed.sort_unstable();
    listed.dedup();
    for (flag, why) in listed {
        let _ = writeln!(text, "| `--{flag}` | {why} |");
    }
    let _ = writeln!(text, "\n## Deprecated flags\n\n| flag | use instead |\n|---|---|");
    for (flag, instead) in DEPRECATED {
        let _ = writeln!(text, "| `--{flag}` | `{instead}` |");
    }
    let _ = writeln!(text, "\n## Flags that are refused\n\nkube-proxy's on Windows.\n\n| flag | why |\n|---|---|");
    for (flag, _, why) in REFUSED {
        let _ = writeln!(text, "| `--{flag}` | {why} |");
    }
    text
}

fn flags(text: &mut String) {
    let command = cli::command();
    let agent = command.find_subcommand("agent").unwrap();
    let mut heading = "";
    for arg in agent.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(long) = arg.get_long() else { continue };
        let now = arg.get_help_heading().unwrap_or("General");
        if now != heading {
            let _ = writeln!(text, "\n## {now}\n\n| flag | default | meaning |\n|---|---|---|");
            heading = now;
        }
        let names: Vec<_> = std::iter::once(long).chain(arg.get_visible_aliases().into_iter().flatten()).collect();
        let names: Vec<_> = names.into_iter().map(|name| format!("`--{name}`")).collect();
        let takes_value = arg.get_action().takes_values();
        let default: Vec<_> = if takes_value { arg.get_default_values().iter().collect() } else { Vec::new() };
        let default: Vec<_> = default.into_iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let _ = writeln!(text, "| {} | {} | {help} |", names.join(", "), default.join(", "));
    }
}

fn fields(text: &mut String) {
    let _ = writeln!(
        text,
        "\n## Fields of KubeProxyConfiguration\n\n`apiVersion: kubeproxy.config.k8s.io/v1alpha1`, `kind: KubeProxyConfiguration`.\n\n| field | default | flag | accepted | in Weft |\n|---|---|---|---|---|"
    );
    for field in FIELDS {
        let default = if field.default.is_empty() { "`\"\"`".to_owned() } else { format!("`{}`", field.default) };
        let flag = if field.flag.is_empty() { String::new() } else { format!("`--{}`", field.flag) };
        let allowed = field.kind.allowed();
        let allowed = if field.kind == Kind::Any { "anything" } else { allowed.trim_start_matches("must be ") };
        let effect = match field.effect {
            Effect::Used(what) => what.to_owned(),
            Effect::None(why) => format!("no effect: {why}"),
        };
        let _ = writeln!(text, "| `{}` | {default} | {flag} | {allowed} | {effect} |", field.path);
    }
}
