//! The fuzz targets in short: some seconds of random input each, in an ordinary build, so that every run of the tests holds them.
//! `cargo xtask fuzz` finds more, for it sees which input leads where.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use fastrand::Rng;

#[expect(unreachable_pub, reason = "a library elsewhere")]
#[path = "../../fuzz/src/lib.rs"]
mod bodies;

/// How long each target runs. The seeds are tried first, whatever that takes.
const TIME: Duration = Duration::from_secs(3);

/// Longest input that is made of nothing.
const LENGTH: usize = 4096;

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name), bodies::targets::$name);
        })*
    };
}

targets! { planner_events manifests api_json cni_config cni_args cni_store }

/// Every target of `fuzz/` is above.
#[test]
fn no_target_is_missing() {
    let here = include_str!("fuzz.rs").lines().find(|line| line.starts_with("targets! {")).expect("the list above");
    for file in fs::read_dir(directory().join("fuzz_targets")).expect("fuzz/fuzz_targets") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(here.split(' ').any(|listed| listed == name), "{name}");
    }
}

fn fuzz(target: &str, body: fn(&[u8])) {
    let seeds = seeds(target);
    let number = fastrand::u64(..);
    let mut rng = Rng::with_seed(number);
    let started = Instant::now();
    seeds.iter().for_each(|seed| check(target, body, seed));
    let mut inputs = 0_u32;
    while started.elapsed() < TIME {
        check(target, body, &input(&mut rng, &seeds));
        inputs += 1;
    }
    eprintln!("{target}: {inputs} inputs from {number}");
}

/// Runs the target; what it fails at is kept.
fn check(target: &str, body: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_ok() {
        return;
    }
    let kept = directory().join("artifacts").join(target);
    fs::create_dir_all(&kept).expect("a directory for the input");
    let file = kept.join(format!("random-{:016x}", fastrand::u64(..)));
    fs::write(&file, input).expect("keep the input");
    panic!("{target} fails with {}: make it a test of the crate", file.display());
}

/// Random bytes, or a seed with some changes.
fn input(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = match rng.choice(seeds) {
        Some(seed) if rng.u8(..) > 32 => seed.clone(),
        _ => bytes(rng, LENGTH),
    };
    for _ in 0..rng.usize(..8) {
        change(rng, &mut input, seeds);
    }
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let start = rng.usize(..=input.len());
    let end = rng.usize(start..=input.len().min(start + 64));
    match rng.u8(..5) {
        0 if start < input.len() => input[start] ^= 1 << rng.u8(..8),
        1 if start < input.len() => input[start] = rng.u8(..),
        2 => drop(input.drain(start..end)),
        3 => {
            let again = input[start..end].to_vec();
            drop(input.splice(start..start, again));
        }
        _ => {
            let piece = match rng.choice(seeds) {
                Some(seed) => {
                    let start = rng.usize(..=seed.len());
                    seed[start..rng.usize(start..=seed.len())].to_vec()
                }
                None => bytes(rng, 64),
            };
            drop(input.splice(start..end, piece));
        }
    }
}

fn bytes(rng: &mut Rng, longest: usize) -> Vec<u8> {
    let length = rng.usize(..=longest);
    (0..length).map(|_| rng.u8(..)).collect()
}

/// What a target starts from; none has none.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(directory().join("seeds").join(target)) else { return Vec::new() };
    files.map(|file| fs::read(file.expect("an entry").path()).expect("a seed")).collect()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}
