//! `cargo xtask tidy`: the rules of the house that no compiler knows.
//!
//! Each rule is a pure function from files to complaints. The lists of exceptions only shrink: an
//! exception that is no longer needed is a complaint, too.

mod arrows;
mod links;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::root;

/// The files of the repository: those that git knows, and new ones that it does not ignore.
pub(crate) struct Tree {
    /// By path from the root. Files that are not text are left out.
    texts: BTreeMap<String, String>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("starting git")?;
        if !listed.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        }
        let names = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
        let mut texts = BTreeMap::new();
        for name in names.split_terminator('\0') {
            // A file that was removed but not yet committed so is still listed.
            if let Ok(text) = fs::read_to_string(root.join(name)) {
                texts.insert(name.to_owned(), text);
            }
        }
        Ok(Self { texts })
    }

    fn get(&self, path: &str) -> Result<&str> {
        let text = self.texts.get(path);
        Ok(text.with_context(|| format!("no {path}"))?)
    }

    fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let texts = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self {
            texts: texts.collect(),
        }
    }
}

pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(root())?;
    let mut complaints = arrows::check(&tree)?;
    complaints.extend(source::check(&tree)?);
    complaints.extend(links::check(&tree, |path| root().join(path).exists()));
    complaints.extend(lock(&tree)?);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        count => bail!("{count} things to tidy"),
    }
}

/// Each crate is somebody whom we trust, and time that every build takes.
const CRATES_MAX: usize = 400;

fn lock(tree: &Tree) -> Result<Option<String>> {
    let crates = tree.get("Cargo.lock")?.matches("[[package]]").count();
    let over = crates > CRATES_MAX;
    Ok(over.then(|| format!("Cargo.lock: {crates} crates, at most {CRATES_MAX}")))
}
