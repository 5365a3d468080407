//! Which crate may depend on which: as ARCHITECTURE.md draws it, and no other way.

use anyhow::{Context, Result};
use toml::Table;

use super::Tree;

/// The sentence in ARCHITECTURE.md that draws the arrows.
const SENTENCE: &str = "Arrows point down:";

/// Crates that wire or test the others and may know all of them.
const ABOVE: [&str; 5] = ["martlet", "testkit", "e2e", "bench", "xtask"];

pub(super) fn check(tree: &Tree) -> Result<Vec<String>> {
    let layers = layers(tree.get("ARCHITECTURE.md")?)?;
    let rank = |name: &str| layers.iter().position(|layer| layer.contains(&name));
    let mut complaints = Vec::new();
    for (path, manifest) in tree.ending("Cargo.toml") {
        let manifest: Table = manifest.parse().with_context(|| path.to_owned())?;
        let Some(name) = manifest
            .get("package")
            .and_then(|package| package["name"].as_str())
        else {
            continue;
        };
        let dependencies = manifest
            .get("dependencies")
            .and_then(|section| section.as_table());
        let dependencies = dependencies
            .into_iter()
            .flat_map(Table::keys)
            .map(String::as_str);
        if ABOVE.contains(&name) {
            continue;
        }
        let Some(from) = rank(name) else {
            complaints.push(format!(
                "{path}: ARCHITECTURE.md draws no arrow from `{name}`"
            ));
            continue;
        };
        for dependency in dependencies {
            let wrong = match rank(dependency) {
                Some(to) => to <= from,
                None => ABOVE.contains(&dependency),
            };
            if wrong {
                complaints.push(format!("{path}: `{name}` must not know `{dependency}`"));
            }
        }
    }
    Ok(complaints)
}

/// The layers from top to bottom.
fn layers(architecture: &str) -> Result<Vec<Vec<&str>>> {
    let (_, picture) = architecture
        .split_once(SENTENCE)
        .with_context(|| format!("ARCHITECTURE.md does not say `{SENTENCE}`"))?;
    let (picture, _) = picture.split_once('.').context("the arrows have no end")?;
    Ok(picture
        .split('→')
        .map(|layer| layer.split(',').map(str::trim).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_dependency(dependency: &str, complaints: &[&str]) {
        let manifest =
            format!("[package]\nname = \"shard\"\n[dependencies]\n{dependency}.workspace = true");
        let tree = Tree::of(&[
            (
                "ARCHITECTURE.md",
                "Text. Arrows point down: swift, admin → shard,\nchunks → base. More.",
            ),
            ("crates/shard/Cargo.toml", &manifest),
            ("Cargo.toml", "[workspace]"),
        ]);
        assert_eq!(check(&tree).unwrap(), complaints);
    }

    #[test]
    fn an_arrow_points_down() {
        check_dependency("base", &[]);
        check_dependency("serde", &[]);
    }

    #[test]
    fn an_arrow_up_or_sideways_is_refused() {
        check_dependency(
            "admin",
            &["crates/shard/Cargo.toml: `shard` must not know `admin`"],
        );
        check_dependency(
            "chunks",
            &["crates/shard/Cargo.toml: `shard` must not know `chunks`"],
        );
        check_dependency(
            "testkit",
            &["crates/shard/Cargo.toml: `shard` must not know `testkit`"],
        );
    }
}
