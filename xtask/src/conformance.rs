//! `cargo xtask conformance`: suites that others wrote.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use e2e::conformance::{CORE_FILES, Expected, Suite};

use crate::{root, target};

#[derive(Subcommand)]
pub(crate) enum Api {
    /// OpenStack Swift's functional tests: accounts, containers, objects
    Swift {
        /// Test the server that gives tokens here instead of starting Martlet; it must know the
        /// suite's users
        #[arg(long, value_name = "URL")]
        against: Option<String>,
        /// Run these files of the suite only, and judge no counts
        #[arg(value_name = "FILE")]
        files: Vec<String>,
    },
}

pub(crate) fn run(api: &Api) -> Result<()> {
    let Api::Swift { against, files } = api;
    let suite = Suite::prepare(&target().join("conformance/swift"))?;
    let url = against.as_deref().context("no server yet")?;
    let work = target().join("conformance/run");

    let core = files.is_empty();
    let files: Vec<&str> = if core {
        CORE_FILES.to_vec()
    } else {
        files.iter().map(String::as_str).collect()
    };
    let mut cases = Vec::new();
    for file in files {
        cases.extend(suite.run(file, url, &work)?);
    }
    let list = if core && against.is_none() {
        std::fs::read_to_string(root().join("e2e/conformance/expected.txt"))?
    } else {
        "passed-min 0".to_owned()
    };
    let verdict = Expected::parse(&list)?.judge(&cases);
    println!("{verdict}");
    if verdict.complaints.is_empty() || against.is_some() {
        return Ok(());
    }
    bail!("conformance is not as expected: see {}", work.display());
}
