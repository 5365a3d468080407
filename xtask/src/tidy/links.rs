//! Links between our own pages lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::Tree;

pub(super) fn check(tree: &Tree, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".md") {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        for link in links(text) {
            let file = link.split('#').next().unwrap_or_default();
            let found = normalize(&folder.join(file)).is_some_and(|target| exists(&target));
            if !file.is_empty() && !found {
                complaints.push(format!("{path}: dead link to {link}"));
            }
        }
    }
    complaints
}

/// The relative links of a page: `](target)` and `[name]: target`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let inline = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let named = text.lines().filter_map(|line| {
        let (_, target) = line.strip_prefix('[')?.split_once("]: ")?;
        target.split_whitespace().next()
    });
    inline
        .chain(named)
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
}

/// Without `.` and `..`; nothing when it leaves the repository.
fn normalize(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_are_told_and_live_ones_are_not() {
        let page = "[a](ops.md#start) [b](../README.md) [c](https://x.org/y) [d](#here)\n\
                    [gone](gone.md) [out](../../etc/passwd)\n[named]: lost.md \"title\"\n";
        let tree = Tree::of(&[("docs/proof.md", page)]);
        let exists = |path: &Path| {
            ["docs/ops.md", "README.md"]
                .iter()
                .any(|have| Path::new(have) == path)
        };
        assert_eq!(
            check(&tree, exists),
            [
                "docs/proof.md: dead link to gone.md",
                "docs/proof.md: dead link to ../../etc/passwd",
                "docs/proof.md: dead link to lost.md",
            ]
        );
    }
}
