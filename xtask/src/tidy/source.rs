//! How large our files are, how they begin, and what they must not say.

use anyhow::Result;

use super::Tree;

/// At this size look for the second idea in a file.
const LINES_WARN: usize = 600;
/// A file above this is refused.
const LINES_MAX: usize = 1000;

/// Files above [`LINES_WARN`] that we have not split yet. Only shrinks.
const LARGE: &str = "xtask/large-files.txt";

/// Beginnings of paths that exist on somebody's machine and mean nothing on others.
const PRIVATE: [&str; 3] = ["/home/", "/root/", "/work/"];

pub(super) fn check(tree: &Tree) -> Result<Vec<String>> {
    let large: Vec<&str> = tree
        .get(LARGE)?
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".rs") {
        if path.ends_with("/tests.rs") || path.ends_with("build.rs") {
            continue;
        }
        if !text.starts_with("//!") {
            complaints.push(format!("{path}: begins without `//!`: what is its idea?"));
        }
        let lines = lines_without_tests(text);
        match (lines > LINES_WARN, large.contains(&path)) {
            (true, _) if lines > LINES_MAX => {
                complaints.push(format!("{path}: {lines} lines, at most {LINES_MAX}"));
            }
            (true, false) => {
                complaints.push(format!(
                    "{path}: {lines} lines: look for the second idea in it"
                ));
            }
            (false, true) => {
                complaints.push(format!("{path}: {lines} lines: take it off {LARGE}"));
            }
            (true, true) | (false, false) => {}
        }
    }
    for path in large.iter().filter(|path| !tree.texts.contains_key(**path)) {
        complaints.push(format!("{LARGE}: {path} is gone"));
    }
    for (path, text) in &tree.texts {
        complaints.extend(private(path, text));
    }
    Ok(complaints)
}

/// Test modules stand last in a file and do not count.
fn lines_without_tests(text: &str) -> usize {
    text.split("\n#[cfg(test)]\nmod tests {")
        .next()
        .map_or(0, |code| code.lines().count())
}

/// Lines that name a place on one person's machine.
fn private(path: &str, text: &str) -> Vec<String> {
    if path == file!() {
        return Vec::new();
    }
    let begins = |line: &str, start: &str| {
        line.match_indices(start).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "$}/._-".contains(c))
        })
    };
    let numbered = text.lines().enumerate();
    numbered
        .filter(|(_, line)| PRIVATE.iter().any(|start| begins(line, start)))
        .map(|(number, line)| {
            format!(
                "{path}:{}: names a private path: {}",
                number + 1,
                line.trim()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        format!("//! Idea.\n{}", "x\n".repeat(count - 1))
    }

    #[track_caller]
    fn check_source(text: &str, large: &str, complaints: &[&str]) {
        let tree = Tree::of(&[("crates/a/src/lib.rs", text), (LARGE, large)]);
        assert_eq!(check(&tree).unwrap(), complaints);
    }

    #[test]
    fn a_large_file_must_be_on_the_list_and_a_small_one_not() {
        let path = "crates/a/src/lib.rs";
        check_source(&lines(600), "", &[]);
        check_source(&lines(601), path, &[]);
        check_source(
            &lines(601),
            "",
            &["crates/a/src/lib.rs: 601 lines: look for the second idea in it"],
        );
        check_source(
            &lines(1001),
            path,
            &["crates/a/src/lib.rs: 1001 lines, at most 1000"],
        );
        check_source(
            &lines(9),
            path,
            &["crates/a/src/lib.rs: 9 lines: take it off xtask/large-files.txt"],
        );
        check_source(
            &lines(9),
            "gone.rs",
            &["xtask/large-files.txt: gone.rs is gone"],
        );
    }

    #[test]
    fn tests_do_not_count() {
        let tests = format!("{}\n#[cfg(test)]\nmod tests {{\n{}", lines(10), lines(2000));
        check_source(&tests, "", &[]);
    }

    #[test]
    fn a_module_begins_with_its_idea() {
        check_source(
            "use x;\n",
            "",
            &["crates/a/src/lib.rs: begins without `//!`: what is its idea?"],
        );
    }

    #[test]
    fn a_private_path_is_told() {
        let text = "//! See /home/me/notes and a/work/b.\n// In /srv.\n";
        check_source(
            text,
            "",
            &["crates/a/src/lib.rs:1: names a private path: //! See /home/me/notes and a/work/b."],
        );
    }
}
