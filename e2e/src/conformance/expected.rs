//! The committed list of tests that do not pass yet, and the verdict over a run.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};

use super::{Case, Outcome};

/// Which tests do not pass, each with what it waits for. Everything else must.
#[derive(Debug)]
pub struct Expected {
    passed_min: usize,
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    outcome: Outcome,
}

impl Expected {
    /// Reads lines of `test outcome reason..`; `#` begins a comment, and one line says
    /// `passed-min N`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut passed_min = None;
        let mut waiting = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (None, _) => {}
                (Some("passed-min"), Some(count)) => passed_min = Some(count.parse()?),
                (Some(name), Some(outcome)) => {
                    let outcome = match outcome {
                        "failed" => Outcome::Failed,
                        "skipped" => Outcome::Skipped,
                        other => bail!("{name}: `{other}` is neither failed nor skipped"),
                    };
                    words
                        .next()
                        .with_context(|| format!("{name}: no reason given"))?;
                    if waiting
                        .insert(name.to_owned(), Waiting { outcome })
                        .is_some()
                    {
                        bail!("{name} is listed twice");
                    }
                }
                (Some(word), None) => bail!("cannot read `{word}`"),
            }
        }
        let passed_min = passed_min.context("no `passed-min` line")?;
        Ok(Self {
            passed_min,
            waiting,
        })
    }

    /// Compares what happened with what was expected.
    pub fn judge(&self, cases: &[Case]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut seen = 0;
        for case in cases {
            match case.outcome {
                Outcome::Passed => verdict.passed += 1,
                Outcome::Failed => verdict.failed += 1,
                Outcome::Skipped => verdict.skipped += 1,
            }
            let listed = self.waiting.get(&case.name);
            seen += usize::from(listed.is_some());
            match (case.outcome, listed.map(|waiting| waiting.outcome)) {
                (Outcome::Passed, None) => {}
                (got, Some(listed)) if got == listed => {}
                (Outcome::Passed, Some(_)) => {
                    verdict.complain(format!("{} passes: take it off the list", case.name));
                }
                (got, None | Some(_)) => {
                    verdict.complain(format!("{} {got}: {}", case.name, case.message));
                }
            }
        }
        if seen < self.waiting.len() {
            let ran = |name: &&String| cases.iter().any(|case| case.name == **name);
            for name in self.waiting.keys().filter(|name| !ran(name)) {
                verdict.complain(format!("{name} is listed but did not run"));
            }
        }
        if verdict.passed < self.passed_min {
            verdict.complain(format!(
                "{} passed, not {}",
                verdict.passed, self.passed_min
            ));
        }
        verdict
    }
}

/// Counts, and all that is not as expected.
#[derive(Debug, Default)]
pub struct Verdict {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub complaints: Vec<String>,
}

impl Verdict {
    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.complaints {
            writeln!(f, "unexpected: {complaint}")?;
        }
        let (passed, failed, skipped) = (self.passed, self.failed, self.skipped);
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Not yet.\npassed-min 2\na::slow failed later: large objects\nb::v3 skipped no Keystone\n";

    #[track_caller]
    fn check(outcomes: &[(&str, Outcome)], complaints: &[&str]) {
        let cases: Vec<Case> = outcomes
            .iter()
            .map(|(name, outcome)| Case {
                name: (*name).to_owned(),
                outcome: *outcome,
                message: "why".to_owned(),
            })
            .collect();
        let verdict = Expected::parse(LIST).unwrap().judge(&cases);
        assert_eq!(verdict.complaints, complaints);
    }

    #[test]
    fn what_was_expected_is_accepted() {
        let (slow, v3) = (("a::slow", Outcome::Failed), ("b::v3", Outcome::Skipped));
        let (x, y) = (("x", Outcome::Passed), ("y", Outcome::Passed));
        check(&[x, slow, y, v3], &[]);
    }

    #[test]
    fn a_lost_a_gained_and_a_missing_test_are_told() {
        let slow = ("a::slow", Outcome::Passed);
        let (x, y) = (("x", Outcome::Passed), ("y", Outcome::Failed));
        check(
            &[x, slow, y],
            &[
                "a::slow passes: take it off the list",
                "y failed: why",
                "b::v3 is listed but did not run",
            ],
        );
    }

    #[test]
    fn too_few_passes_are_told() {
        let (slow, v3) = (("a::slow", Outcome::Failed), ("b::v3", Outcome::Skipped));
        check(&[slow, v3], &["0 passed, not 2"]);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_refused() {
        for bad in [
            "",
            "passed-min 1\na failed",
            "passed-min 1\na gone why",
            "passed-min 1\na",
        ] {
            assert!(Expected::parse(bad).is_err(), "{bad:?}");
        }
    }
}
