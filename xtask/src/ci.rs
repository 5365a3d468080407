//! `cargo xtask ci`: everything in its short form, to the end even after a failure, and counted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::check;
use crate::conformance;
use crate::{bench, cargo};

/// What passed and what did not: tests where a step has some, else the step itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

type Step = (&'static str, fn() -> Result<Tally>);

const STEPS: [Step; 4] = [
    ("rules", || {
        check::rules().map(|()| Tally {
            passed: 1,
            failed: 0,
        })
    }),
    ("tests", tests),
    ("conformance", conformance::core),
    ("benchmark, short form", || {
        bench::short().map(|()| Tally {
            passed: 1,
            failed: 0,
        })
    }),
];

pub(crate) fn run() -> Result<()> {
    let mut total = Tally::default();
    for (name, step) in STEPS {
        eprintln!("--- {name}");
        let start = Instant::now();
        let tally = step().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Tally {
                passed: 0,
                failed: 1,
            }
        });
        let seconds = start.elapsed().as_secs();
        eprintln!(
            "--- {name}: {} passed, {} failed, {seconds} s",
            tally.passed, tally.failed
        );
        total.add(tally);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

fn tests() -> Result<Tally> {
    let mut tally = Tally::default();
    for mut command in check::tests() {
        let counted = counted(command.env("E2E_SKIP", "never"))?;
        tally.add(counted);
    }
    Ok(tally)
}

/// Runs tests, showing what they print, and counts by their closing lines.
fn counted(command: &mut Command) -> Result<Tally> {
    let (output, input) = std::io::pipe()?;
    command.stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn()?;
    // The ends that the child writes to must not stay open here, or the reading would never end.
    *command = cargo();
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let mut stderr = std::io::stderr().lock();
        stderr.write_all(&line)?;
        stderr.write_all(b"\n")?;
        tally.add(count(&String::from_utf8_lossy(&line)));
    }
    // One that could not even be built has no closing line.
    if !child.wait()?.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Reads the closing line of cargo test or of nextest.
fn count(line: &str) -> Tally {
    let line = line.trim_start();
    let mut tally = Tally::default();
    if !line.starts_with("test result: ") && !line.starts_with("Summary [") {
        return tally;
    }
    let words: Vec<&str> = line
        .split([' ', ',', ';', '.'])
        .filter(|word| !word.is_empty())
        .collect();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<usize>() else {
            continue;
        };
        match pair[1] {
            "passed" => tally.passed += number,
            "failed" | "timed" | "exec" => tally.failed += number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, passed: usize, failed: usize) {
        assert_eq!(count(line), Tally { passed, failed });
    }

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        check(
            "     Summary [   0.034s] 13 tests run: 13 passed, 0 skipped",
            13,
            0,
        );
        check(
            "     Summary [  61.2s] 13 tests run: 9 passed (2 slow), 3 failed, 1 timed out, 4 skipped",
            9,
            4,
        );
        check(
            "test result: FAILED. 7 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            7,
            2,
        );
        check("5 passed and 1 failed, it said", 0, 0);
    }
}
