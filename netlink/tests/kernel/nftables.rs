//! Notices of removed rules, with `nft` as the one who removes.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use weft_netlink::NftWatch;

use crate::in_new_netns;

fn nft(commands: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refuses {commands}");
}

#[test]
fn removals_are_noticed_and_additions_are_not() {
    in_new_netns(|_| {
        let watch = NftWatch::open().unwrap();
        nft("add table inet x\nadd chain inet x c\nadd rule inet x c accept\nadd table ip other\n");
        assert!(!watch.removed("x").unwrap());
        nft("delete table ip other");
        assert!(!watch.removed("x").unwrap());
        for command in ["flush chain inet x c", "delete chain inet x c", "flush ruleset"] {
            nft(command);
            assert!(watch.removed("x").unwrap(), "{command}");
            assert!(!watch.removed("x").unwrap(), "told once");
        }
    });
}
