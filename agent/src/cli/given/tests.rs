use super::{GivenBy, spelled_out};
use crate::cli::{self, Command, RunArgs};

fn agent(words: &[&str]) -> RunArgs {
    match cli::parse_from(words.iter().map(Into::into)).unwrap().command {
        Command::Agent(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_that_has_a_value_is_a_flag_and_its_giver_is_known() {
    let arguments = ["weft", "agent", "--iface=a", "--iface=b", "--masquerade-all", "--v=3", "--source=dir:/x"];
    let args = agent(&arguments).agent;
    let command = cli::command();
    let agent = command.find_subcommand("agent").unwrap();
    for (name, _) in args.given.iter() {
        assert!(agent.get_arguments().any(|arg| arg.get_long() == Some(name)), "{name}");
    }
    let by = |flag| args.given.iter().find(|(name, _)| *name == flag).map(|(_, given)| given.by);
    assert_eq!([by("iface"), by("components")], [Some(GivenBy::CommandLine), Some(GivenBy::Default)]);
    assert_eq!(args.given.value("iface"), Some("b"));
    assert_eq!([args.given.value("masquerade-all"), args.given.value("v")], [Some("true"), Some("3")]);
    assert_eq!(args.given.value("components"), None, "nobody gave it");
}

#[test]
fn switches_are_those_of_go() {
    for (text, on) in [("1", true), ("t", true), ("TRUE", true), ("0", false), ("False", false)] {
        let flags = [format!("--ip-masq={text}"), format!("--bind-address-hard-fail={text}")];
        let args = agent(&["weft", "agent", &flags[0], &flags[1]]).agent;
        assert_eq!(args.overlay.ip_masq, on, "{text}");
        assert_eq!(args.given.value("bind-address-hard-fail"), Some(text));
    }
    assert!(cli::command().try_get_matches_from(["weft", "agent", "--ip-masq=maybe"]).is_err());
}

#[test]
fn gos_spellings_are_understood() {
    for (given, meant) in [
        ("-iface=eth0", "--iface=eth0"),
        ("--proxy_mode=ebpf", "--proxy-mode=ebpf"),
        ("--log_backtrace_at=a_b.go:1", "--log-backtrace-at=a_b.go:1"),
        ("-ip-masq", "--ip-masq"),
        ("-v=2", "-v=2"),
        ("-v10", "-v10"),
        ("--version=raw", "--version"),
        ("-o", "-o"),
        ("-ojson", "-ojson"),
        ("eth_0", "eth_0"),
        ("--", "--"),
    ] {
        assert_eq!(spelled_out(given.to_owned()), meant, "{given}");
    }
}
