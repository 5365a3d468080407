//! Trees of files: made, copied, compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// Makes a tree of `count` files with `bytes` altogether, names of every kind and sizes from nothing up.
pub fn make_tree(root: &Path, count: usize, bytes: u64, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let folders = [
        "",
        "a",
        "a/b c",
        "a/b c/d",
        "ä ö",
        "100%",
        "x+y&z=1",
        "日本語",
    ];
    // Most files are small, and a few hold most of the bytes.
    let large = (count / 50).max(1);
    let small_bytes = usize::try_from(bytes / 2)? / count;
    for number in 0..count {
        let folder = root.join(folders[number % folders.len()]);
        fs::create_dir_all(&folder)?;
        let size = match number {
            0 => 0,
            _ if number <= large => usize::try_from(bytes / 2)? / large,
            _ => random.usize(0..=2 * small_bytes),
        };
        let mut body = vec![0; size];
        random.fill(&mut body);
        fs::write(folder.join(format!("file {number:05}.bin")), body)?;
    }
    Ok(())
}

/// Fails unless both trees have the same files with the same bytes.
pub fn compare(one: &Path, other: &Path) -> Result<()> {
    let (ours, theirs) = (sizes(one)?, sizes(other)?);
    ensure!(
        ours == theirs,
        "names or sizes differ: {} files and {}",
        ours.len(),
        theirs.len()
    );
    for name in ours.keys() {
        let same = fs::read(one.join(name))? == fs::read(other.join(name))?;
        ensure!(same, "{name} differs");
    }
    Ok(())
}

/// All files below a folder by their relative names.
pub fn sizes(root: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let name = path
                    .strip_prefix(root)?
                    .to_str()
                    .context("a name that is not UTF-8")?;
                found.insert(name.to_owned(), entry.metadata()?.len());
            }
        }
    }
    Ok(found)
}

/// Copies a folder as it is, holes and all; what was at `to` is gone.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    process::run(
        Command::new("cp")
            .args(["-a", "--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
    )
}
