//! The same objects as plain files, for another server to serve.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::args::ObjectArgs;
use super::body::{Body, Pattern};

/// Writes `count` objects below `dir`, each under its name.
pub(super) fn write(dir: &Path, objects: &ObjectArgs, count: u64) -> anyhow::Result<()> {
    let pattern = Pattern::new(objects.seed);
    for number in objects.names.first..objects.names.first + count {
        let name = objects.names.name(number);
        let path = dir.join(&name);
        let body = pattern.body(&name, objects.size);
        write_one(&path, &body).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "these files belong to nobody's data and are lost without harm"
)]
fn write_one(path: &Path, body: &Body<'_>) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::File::create(path)?;
    let mut written = 0;
    while written < body.len {
        let slice = body.slice(written);
        file.write_all(slice)?;
        written += slice.len() as u64;
    }
    Ok(())
}
