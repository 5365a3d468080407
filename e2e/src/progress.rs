//! How far a long run is, for whoever waits for it: a bar on a terminal, else a line now and then.
//!
//! All goes to standard error. A step that fails says after how many it did, and so does a run that
//! ctrl-C ends: between two steps, so that what it mounted and started is put away.

use std::fmt;
use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// A few lines a minute where a step takes a second, and none in tests of a few steps.
const LINE_EVERY: usize = 50;

/// As process-wide as the signal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all runs of this process after the step that they are in. Gives whether they knew already.
pub fn interrupt() -> bool {
    INTERRUPTED.swap(true, Ordering::Relaxed)
}

/// Why a run ended that nothing was wrong with.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Counts the steps of a run.
pub struct Progress {
    /// What the steps are called.
    unit: &'static str,
    total: usize,
    done: usize,
    start: Instant,
    shown: Shown,
    interrupted: &'static AtomicBool,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Box<dyn Write>),
}

/// "417 of 1000 cycles".
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unit, total, done, ..
        } = self;
        write!(f, "{done} of {total} {unit}")
    }
}

impl Progress {
    pub fn new(unit: &'static str, total: usize) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            Shown::Bar(bar(unit, total))
        } else {
            Shown::Lines(Box::new(std::io::stderr()))
        };
        Self {
            unit,
            total,
            done: 0,
            start: Instant::now(),
            shown,
            interrupted: &INTERRUPTED,
        }
    }

    /// Runs the next step and counts it.
    ///
    /// # Errors
    /// The step's own, with how many were done before it; [`Interrupted`] once there was a ctrl-C.
    pub fn step(&mut self, step: impl FnOnce() -> Result<()>) -> Result<()> {
        // A ctrl-C reaches the server, too, and what a step says then is no finding.
        let result = if self.is_interrupted() {
            Ok(())
        } else {
            step()
        };
        if self.is_interrupted() {
            return Err(anyhow::Error::new(Interrupted).context(format!("after {self}")));
        }
        result.map_err(|error| error.context(format!("after {self}")))?;
        self.done += 1;
        self.show();
        Ok(())
    }

    pub fn done(&self) -> usize {
        self.done
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn show(&mut self) {
        let took = self.start.elapsed();
        let line = format!(
            "{self} in {took:.0?}, about {:.0?} to go",
            remaining(took, self.done, self.total)
        );
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(self.done as u64),
            // Whoever closed it does not want to know.
            Shown::Lines(lines) if self.done.is_multiple_of(LINE_EVERY) => {
                let _ = writeln!(lines, "{line}");
            }
            Shown::Lines(_) => {}
        }
    }
}

/// If the rest goes as what was done.
fn remaining(took: Duration, done: usize, total: usize) -> Duration {
    let each = took.as_secs_f64() / done.max(1) as f64;
    Duration::from_secs_f64(each * total.saturating_sub(done) as f64)
}

fn bar(unit: &'static str, total: usize) -> ProgressBar {
    let template = "{bar:40} {pos} of {len} {prefix}, {elapsed}, about {eta} to go";
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    ProgressBar::new(total as u64)
        .with_style(style)
        .with_prefix(unit)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::bail;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn progress(total: usize, interrupted: &'static AtomicBool) -> (Progress, Text) {
        let text = Text::default();
        let progress = Progress {
            shown: Shown::Lines(Box::new(text.clone())),
            interrupted,
            ..Progress::new("cycles", total)
        };
        (progress, text)
    }

    #[test]
    fn a_line_comes_now_and_then() {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let (mut progress, text) = progress(120, &NEVER);
        for _ in 0..120 {
            progress.step(|| Ok(())).unwrap();
        }
        let text = String::from_utf8(text.0.lock().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("50 of 120 cycles in "), "{text}");
        assert!(lines[1].starts_with("100 of 120 cycles in "), "{text}");
    }

    #[test]
    fn what_is_to_come_takes_as_long_as_what_was() {
        let second = Duration::from_secs(1);
        assert_eq!(remaining(second * 50, 50, 120), second * 70);
        assert_eq!(remaining(second, 120, 120), Duration::ZERO);
    }

    #[test]
    fn a_failed_step_says_how_many_were_done() {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let (mut progress, _) = progress(10, &NEVER);
        progress.step(|| Ok(())).unwrap();
        let error = progress.step(|| bail!("a row is gone")).unwrap_err();
        assert_eq!(format!("{error:#}"), "after 1 of 10 cycles: a row is gone");
        assert_eq!(progress.done(), 1);
    }

    #[test]
    fn ctrl_c_ends_a_run_and_is_no_finding() {
        static INTERRUPTED: AtomicBool = AtomicBool::new(false);
        let (mut progress, _) = progress(10, &INTERRUPTED);
        progress.step(|| Ok(())).unwrap();
        let error = progress.step(|| {
            INTERRUPTED.store(true, Ordering::Relaxed);
            bail!("the server is gone")
        });
        let error = error.unwrap_err();
        assert!(error.is::<Interrupted>());
        assert_eq!(format!("{error:#}"), "after 1 of 10 cycles: interrupted");
        let again = progress.step(|| panic!("no step more"));
        assert!(again.unwrap_err().is::<Interrupted>());
    }
}
