//! OpenStack's own functional suite, run against any server that speaks its API.
//!
//! The suite is the source package of `swift` from PyPI, which carries its tests; it is pinned,
//! with all that it needs, in `conformance/requirements.txt`. [`Suite::prepare`] keeps it in a folder outside
//! of the repository, [`Suite::run`] runs one file of it in a process of its own, and
//! [`Expected::judge`] compares the outcomes with the committed list of those that do not pass yet.

mod expected;
mod junit;
mod suite;

pub use expected::{Expected, Verdict};
pub use suite::{Suite, USERS, User};

use std::fmt;

/// The files of the suite that concern accounts, containers and objects, in the order in which they run.
pub const CORE_FILES: [&str; 4] = ["tests", "test_account", "test_container", "test_object"];

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// `file::Class::test`.
    pub name: String,
    pub outcome: Outcome,
    /// Why it was skipped, or how it failed: one line.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}
