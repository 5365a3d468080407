//! The program under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::process;

/// Which build of `martlet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As it ships, in the profile of the tests.
    Plain,
    /// With bugs that can be switched on, which the harnesses must catch.
    Canary,
}

impl Build {
    /// The environment can name the program instead of having it built. Not `MARTLET_..`: those are settings.
    const fn variable(self) -> &'static str {
        match self {
            Self::Plain => "E2E_MARTLET",
            Self::Canary => "E2E_MARTLET_CANARY",
        }
    }

    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Canary => &["--features", "canary"],
        }
    }
}

/// The path of the program, built where it is stale.
///
/// Both builds come from the same target directory, so that they share what they can; each is
/// then copied aside, because the next build of the other would replace it.
pub fn martlet(build: Build) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(build.variable()) {
        return Ok(path.into());
    }
    let target = target();
    let keep = target.join("e2e");
    fs::create_dir_all(&keep)?;
    let lock = File::create(keep.join("lock"))?;
    lock.lock().context("waiting for another build")?;

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "martlet"])
        .args(build.features());
    command
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    process::run(&mut command)?;

    let built = target.join("debug/martlet");
    let kept = keep.join(format!("martlet-{build:?}").to_lowercase());
    if modified(&built) > modified(&kept) {
        // Others may be running the old one: replace it, do not write into it.
        let new = keep.join(format!("new-{}", std::process::id()));
        fs::copy(&built, &new)?;
        fs::rename(&new, &kept)?;
    }
    Ok(kept)
}

/// Nothing, which is older than anything, for a file that is not there.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Where all that is built, fetched or measured goes: above the running program's own folder.
pub fn target() -> PathBuf {
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        return target.into();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}
