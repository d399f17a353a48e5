//! Compiles `ebpf/programs` for the kernel and leaves the object in `OUT_DIR/socket`.
//!
//! Runs cargo itself, because aya-build sets the compiler flags in a way that leaves no room for `-Ctarget-cpu=v3`, without which
//! there is no atomic fetch-add.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "socket";

fn main() {
    let here = variable("CARGO_MANIFEST_DIR");
    for source in ["programs/src", "programs/Cargo.toml", "abi/src", "abi/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", here.join("..").join(source).display());
    }
    let out = variable("OUT_DIR");
    // One directory for debug, release, check and clippy: the object is the same, and `core` is compiled once.
    let target_dir = target_directory(&out).join("ebpf");
    if let Err(reason) = compile(&here, &target_dir) {
        eprintln!("the eBPF programs do not build: {reason}");
        exit(1);
    }
    let built = target_dir.join(TARGET).join("release").join(OBJECT);
    if let Err(error) = strip(&built, &out.join(OBJECT)) {
        eprintln!("copy {} to {}: {error}", built.display(), out.display());
        exit(1);
    }
}

/// Copies the object without its debug information, nine tenths of it, which the linker has made the BTF out of. What the agent embeds
/// stays in its memory.
fn strip(built: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let object = fs::read(built)?;
    let mut builder = Builder::read(&*object)?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    // LLVM keeps section names with those of symbols, where this writer would have them apart.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    fs::write(out, stripped)?;
    Ok(())
}

fn compile(here: &Path, target_dir: &Path) -> Result<(), String> {
    // rustup installs both here; under sudo, or in an editor, it is often missing from PATH.
    let cargo_bin = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(env::split_paths(&path).chain(cargo_bin)).map_err(|error| format!("PATH: {error}"))?;

    let flags = [
        // aya-ebpf asks for the architecture of the kernel; only its kprobe arguments depend on it.
        format!("--cfg=bpf_target_arch=\"{}\"", env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default()),
        // bpf-linker makes the BTF out of the debug info.
        "-Cdebuginfo=2".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(here)
        .args(["build", "--quiet", "--package", "weft-ebpf-programs", "--bin", OBJECT])
        .args(["--release", "--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // These belong to the build of the agent: clippy's wrapper, another target's linker or profile.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_")) {
            cargo.env_remove(name);
        }
    }
    // The workspace's fat LTO is for the size of the agent; these programs are verified as thin LTO leaves them.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "thin");
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        // Warnings of the programs would otherwise never be seen.
        for line in messages.lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::warning={line}");
        }
        return Ok(());
    }
    Err(explain(&messages))
}

/// Names the cure where a tool is missing, which is what usually goes wrong.
fn explain(messages: &str) -> String {
    let missing = if messages.contains("linker `bpf-linker` not found") {
        "bpf-linker is not installed"
    } else if messages.contains("rust-src") || messages.contains("library/Cargo.lock") {
        "the component rust-src of the toolchain is not installed"
    } else {
        return messages.to_owned();
    };
    format!("{missing}; run `cargo xtask setup`\n\n{messages}")
}

/// The workspace's target directory, wherever `--target-dir`, a cross target or cargo's own layout put `OUT_DIR` below it:
/// cargo marks it with a cache tag.
fn target_directory(out: &Path) -> PathBuf {
    out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).unwrap_or(out).to_owned()
}

fn variable(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}")))
}
