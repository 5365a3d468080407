//! Crashes lose nothing that was acknowledged, and the harness would notice if they did.

use e2e::binary::{Build, martlet};
use e2e::crash::{self, Fault, Plan};
use e2e::volume::{self, Kind};
use e2e::{Violation, may_skip};

fn plan(build: Build, fault: Fault, cycles: usize) -> Plan {
    let seed = e2e::seed();
    eprintln!("E2E_SEED={seed}");
    let binary = martlet(build).expect("it builds");
    Plan {
        binary,
        fault,
        cycles,
        seed,
        environment: Vec::new(),
    }
}

#[track_caller]
fn check(fault: Fault, cycles: usize) {
    let possible = fault == Fault::Kill || volume::is_possible();
    if may_skip(possible, "needs root and loop devices") {
        let report = crash::run(&plan(Build::Plain, fault, cycles));
        eprintln!("{}", report.expect("nothing is lost"));
    }
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    check(Fault::Kill, 5);
}

#[test]
fn power_cuts_on_ext4_lose_nothing_acknowledged() {
    check(Fault::PowerCut(Kind::Ext4), 25);
}

#[test]
fn power_cuts_on_xfs_lose_nothing_acknowledged() {
    check(Fault::PowerCut(Kind::Xfs), 25);
}

/// A harness that cannot find a planted bug proves nothing about those that nobody planted.
#[track_caller]
fn check_is_caught(canary: &str) {
    /// A bug that shows in one crash of ten is still found.
    const CYCLES_MAX: usize = 50;
    if !may_skip(volume::is_possible(), "needs root and loop devices") {
        return;
    }
    let mut plan = plan(Build::Canary, Fault::PowerCut(Kind::Xfs), CYCLES_MAX);
    plan.environment = vec![("CANARY", canary.to_owned())];
    let error = crash::run(&plan).expect_err("the planted bug must be found");
    assert!(error.is::<Violation>(), "{error:?}");
    eprintln!("caught: {error:#}");
}

#[test]
fn a_skipped_sync_of_the_log_is_caught() {
    check_is_caught("log-sync-skipped");
}

#[test]
fn a_skipped_sync_of_the_store_is_caught() {
    check_is_caught("store-sync-skipped");
}

#[test]
fn an_early_acknowledgement_is_caught() {
    check_is_caught("acknowledged-early");
}

#[test]
fn a_failed_run_says_how_far_it_came() {
    let plan = Plan {
        binary: "/bin/false".into(),
        fault: Fault::Kill,
        cycles: 3,
        seed: 0,
        environment: Vec::new(),
    };
    let error = crash::run(&plan).expect_err("no server starts");
    let message = format!("{error:#}");
    assert!(message.contains("after 0 of 3 cycles: "), "{message}");
}
