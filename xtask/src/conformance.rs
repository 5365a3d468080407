//! `cargo xtask conformance`: suites that others wrote.

use std::fs;

use anyhow::{Result, bail, ensure};
use clap::Subcommand;
use e2e::binary::{Build, martlet};
use e2e::conformance::{CORE_FILES, Case, Expected, Outcome, Suite, USERS};
use e2e::server::{Launch, Server};

use crate::ci::Tally;
use crate::{root, target};

#[derive(Subcommand)]
pub(crate) enum Api {
    /// OpenStack Swift's functional tests: accounts, containers, objects
    Swift {
        /// Test the server that gives tokens here, which must know the suite's users, instead of
        /// starting Martlet
        #[arg(long, value_name = "URL")]
        against: Option<String>,
        /// Run these files of the suite, and show what does not pass instead of judging it
        #[arg(value_name = "FILE")]
        files: Vec<String>,
    },
}

pub(crate) fn run(api: &Api) -> Result<()> {
    let Api::Swift { against, files } = api;
    if against.is_none() && files.is_empty() {
        return match core()? {
            Tally { failed: 0, .. } => Ok(()),
            _ => bail!("conformance is not as expected"),
        };
    }
    let files = match files.as_slice() {
        [] => CORE_FILES.to_vec(),
        files => files.iter().map(String::as_str).collect(),
    };
    let cases = match against {
        Some(url) => run_against(url, &files)?,
        None => run_on_martlet(&files)?,
    };
    let everything = Expected::parse("passed-min 0")?;
    println!("{}", everything.judge(&cases));
    Ok(())
}

/// The four core files against Martlet, compared with the committed list. Counts as failed what is not as
/// expected.
pub(crate) fn core() -> Result<Tally> {
    let list = fs::read_to_string(root().join("e2e/conformance/expected.txt"))?;
    let verdict = Expected::parse(&list)?.judge(&run_on_martlet(&CORE_FILES)?);
    println!("{verdict}");
    Ok(Tally {
        passed: verdict.passed,
        failed: verdict.complaints.len(),
    })
}

fn run_on_martlet(files: &[&str]) -> Result<Vec<Case>> {
    let work = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir_in(e2e::scratch()?)?;
    let log = target().join("conformance/server.log");
    fs::create_dir_all(log.with_file_name(""))?;
    let _ = fs::remove_file(&log);
    let launch = Launch::new(&martlet(Build::Plain)?, &work.path().join("data"), &log);
    let server = launch.start()?;
    for user in USERS {
        launch.add_user(
            &format!("{}:{}", user.account, user.name),
            user.password,
            user.role,
            user.groups,
        )?;
    }
    let mut cases = run_against(&format!("http://{}/auth/v1.0", server.address), files)?;
    if let Err(error) = in_order(server, &launch) {
        cases.push(Case {
            name: "afterwards".to_owned(),
            outcome: Outcome::Failed,
            message: format!("{error:#}"),
        });
    }
    Ok(cases)
}

/// Whatever the suite did: the server stops well and leaves its directory in order.
fn in_order(server: Server, launch: &Launch) -> Result<()> {
    let status = server.stop()?;
    ensure!(status.success(), "the server stopped with {status}");
    let complaint = launch.check()?;
    ensure!(
        complaint.is_none(),
        "martlet check: {}",
        complaint.unwrap_or_default()
    );
    Ok(())
}

fn run_against(url: &str, files: &[&str]) -> Result<Vec<Case>> {
    let suite = Suite::prepare(&target().join("conformance/swift"))?;
    let work = target().join("conformance/run");
    let mut cases = Vec::new();
    for file in files {
        cases.extend(suite.run(file, url, &work)?);
    }
    println!("pytest's own words are in {}", work.display());
    Ok(cases)
}
