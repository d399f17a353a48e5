//! The documents for readers name what there is: files, other documents, commands and flags.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use weft_tests::Binaries;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Text of each document, by name.
fn documents() -> Result<BTreeMap<String, String>> {
    let directory = root().join("docs");
    let mut documents = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        documents.insert(name, fs::read_to_string(&path)?);
    }
    Ok(documents)
}

/// What stands between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

/// Files of this repository that a text names: words that begin with one of its folders.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 10] = [
        "agent/",
        "cni-plugin/",
        "ebpf/",
        "kube-watch/",
        "manifests/",
        "netlink/",
        "overlay/",
        "proxy/",
        "tests/",
        "xtask/",
    ];
    let words = text.split(|c: char| c.is_whitespace() || "`()[]\"',;:|{}*".contains(c));
    words.map(|word| word.trim_end_matches('.')).filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
}

#[test]
fn files_that_the_guides_name_exist() -> Result<()> {
    let documents = documents()?;
    let mut missing = Vec::new();
    let mut seen = 0;
    for name in ["install.md", "migrate.md", "troubleshooting.md", "how-it-works.md", "comparison.md", "README.md"] {
        for file in named_files(&documents[name]) {
            seen += 1;
            if !root().join(file).exists() {
                missing.push(format!("{name}: {file}"));
            }
        }
    }
    ensure!(missing.is_empty(), "not there: {missing:#?}");
    ensure!(seen > 30, "only {seen} were found");
    Ok(())
}

#[test]
fn links_between_documents_lead_somewhere() -> Result<()> {
    let documents = documents()?;
    let mut broken = Vec::new();
    for (name, text) in &documents {
        for link in between(text, "](", ')').filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = root().join("docs").join(if file.is_empty() { name } else { file });
            let has_anchor =
                |text: &str| anchor.is_empty() || text.lines().any(|line| heading(line) == Some(anchor.into()));
            let target = if path.is_dir() { Ok(String::new()) } else { fs::read_to_string(&path) };
            if !target.is_ok_and(|text| has_anchor(&text)) {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    ensure!(broken.is_empty(), "{broken:#?}");
    let index = &documents["README.md"];
    let left_out: Vec<_> = documents.keys().filter(|name| *name != "README.md" && !index.contains(*name)).collect();
    ensure!(left_out.is_empty(), "README.md does not list {left_out:?}");
    Ok(())
}

/// The anchor of a heading, as GitHub makes it.
fn heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    Some(kept.replace(' ', "-"))
}

/// The commands of `weft` in a document, without that word: in its text, and in its shell blocks.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let in_blocks =
        blocks.filter_map(|line| line.strip_prefix("weft ").or_else(|| Some(line.split_once("-- weft ")?.1)));
    let all = between(text, "`weft ", '`').chain(in_blocks);
    all.map(|command| command.split(" #").next().unwrap_or_default())
}

#[test]
fn commands_of_the_guides_are_understood() -> Result<()> {
    let weft = Binaries::locate()?.agent;
    let documents = documents()?;
    let mut helps: BTreeMap<&str, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for name in ["install.md", "migrate.md", "troubleshooting.md", "how-it-works.md"] {
        for command in commands(&documents[name]) {
            let mut words = command.split_whitespace();
            // `weft ...` stands for any.
            let Some(verb) = words.next().filter(|verb| verb.starts_with(|c: char| c.is_ascii_lowercase())) else {
                continue;
            };
            if !helps.contains_key(verb) {
                let output = Command::new(&weft).args([verb, "--help"]).output()?;
                ensure!(output.status.success(), "{name}: there is no `weft {verb}`");
                helps.insert(verb, String::from_utf8(output.stdout)?);
            }
            seen += 1;
            let flags = words.filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
            wrong.extend(
                flags.filter(|flag| !helps[verb].contains(flag)).map(|flag| format!("{name}: {command}: {flag}")),
            );
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(seen > 20, "only {seen} were found");
    Ok(())
}
