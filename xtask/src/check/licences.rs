//! Licences and bans of `deny.toml`, over the crates in `Cargo.lock`.
//!
//! The file is cargo-deny's and works with it too. Building cargo-deny takes longer than all our checks together, and
//! of it we use these two rules.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::{step, workspace};

/// The part of deny.toml that is checked here.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(rename = "use-instead")]
    instead: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Names every crate that breaks a rule.
pub(super) fn check() -> Result<()> {
    let deny: Deny = workspace::read_toml("deny.toml")?.try_into().context("deny.toml")?;
    let metadata = step::output(step::cargo().args(["metadata", "--format-version=1", "--locked"]))
        .context("cargo metadata --locked: is Cargo.lock up to date?")?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let wrong: Vec<String> = metadata.packages.iter().filter_map(|package| deny.objection(package)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

impl Deny {
    fn objection(&self, package: &Package) -> Option<String> {
        let Package { name, version, license } = package;
        if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == *name) {
            let instead = ban.instead.as_deref().map(|other| format!(", use {other}")).unwrap_or_default();
            return Some(format!("{name} {version}: banned{instead}: {}", ban.reason));
        }
        let license = license.as_deref().unwrap_or_default();
        // LAX takes the old MIT/Apache-2.0 as an OR, as crates.io meant it.
        let Ok(expression) = Expression::parse_mode(license, ParseMode::LAX) else {
            return Some(format!("{name} {version}: cannot read licence {license:?}"));
        };
        let allowed = expression.evaluate(|requirement| self.allows(requirement));
        (!allowed).then(|| format!("{name} {version}: licence {license:?} is not in deny.toml's allow list"))
    }

    fn allows(&self, requirement: &LicenseReq) -> bool {
        self.licenses.allow.contains(&requirement.to_string())
    }
}
