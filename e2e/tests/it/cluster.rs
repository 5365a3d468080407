//! Clusters keep their promises whatever happens, and the harness would notice if they did not.

use std::time::Duration;

use e2e::binary::{Build, martlet};
use e2e::cluster::{self, Plan, Scenario};
use e2e::{Violation, may_skip, network, volume};

fn plan(build: Build, scenario: Scenario, nodes: usize, cycles: usize) -> Plan {
    let seed = e2e::seed();
    eprintln!("E2E_SEED={seed}");
    Plan {
        binary: martlet(build).expect("it builds"),
        scenario,
        nodes,
        cycles,
        seed,
        environment: Vec::new(),
    }
}

fn is_possible(plan: &Plan) -> bool {
    match plan.scenario {
        Scenario::PowerCuts => may_skip(volume::is_possible(), "needs root and loop devices"),
        Scenario::Cuts | Scenario::LateWriters => {
            may_skip(network::is_possible(), "needs root and /dev/net/tun")
        }
        _ => true,
    }
}

#[track_caller]
fn check(scenario: Scenario, nodes: usize, cycles: usize) {
    let plan = plan(Build::Plain, scenario, nodes, cycles);
    if is_possible(&plan) {
        let report = cluster::run(&plan);
        eprintln!("{}", report.expect("all promises are kept"));
    }
}

/// A harness that cannot find a planted bug proves nothing about those that nobody planted.
#[track_caller]
fn check_is_caught(canary: &str, scenario: Scenario, nodes: usize) {
    /// A bug that shows in one of ten is still found.
    const CYCLES_MAX: usize = 50;
    let mut plan = plan(Build::Canary, scenario, nodes, CYCLES_MAX);
    plan.environment = vec![("CANARY", canary.to_owned())];
    if is_possible(&plan) {
        let error = cluster::run(&plan).expect_err("the planted bug must be found");
        assert!(error.is::<Violation>(), "{error:?}");
        eprintln!("caught: {error:#}");
    }
}

const PAUSE: Duration = Duration::from_secs(3);

#[test]
fn one_node_is_linearizable_under_faults() {
    // So many that the history is checked, and another one begun, before the end.
    check(Scenario::Faults, 1, 11);
}

#[test]
fn one_node_that_paused_serves_nothing_stale() {
    check(Scenario::Pauses(PAUSE), 1, 1);
}

#[test]
fn three_nodes_are_linearizable_under_faults() {
    check(Scenario::Faults, 3, 8);
}

#[test]
fn three_nodes_that_are_killed_lose_nothing() {
    check(Scenario::Kills, 3, 5);
}

#[test]
fn three_nodes_without_power_lose_nothing() {
    check(Scenario::PowerCuts, 3, 3);
}

#[test]
fn three_nodes_of_which_one_is_cut_off_lose_nothing() {
    check(Scenario::Cuts, 3, 2);
}

#[test]
fn a_writer_with_an_old_map_leaves_nothing_short_of_a_copy() {
    check(Scenario::LateWriters, 5, 1);
}

#[test]
fn a_leader_that_paused_serves_nothing_stale() {
    check(Scenario::Pauses(PAUSE), 3, 2);
}

#[test]
fn two_of_three_nodes_serve() {
    check(Scenario::Availability, 3, 1);
}

#[test]
fn a_cluster_grows_under_load() {
    check(Scenario::Growth, 5, 0);
}

#[test]
fn devices_come_and_go_under_load() {
    check(Scenario::Devices, 3, 0);
}

#[test]
fn rot_is_mended_from_other_nodes_and_what_is_lost_is_named() {
    check(Scenario::Rot, 3, 0);
}

#[test]
fn what_a_lost_node_held_is_made_again_elsewhere() {
    check(Scenario::Loss, 4, 0);
}

#[test]
fn bodies_in_fragments_survive_two_nodes_and_rot() {
    check(Scenario::Fragments, 6, 1);
}

#[test]
fn a_skipped_sync_of_the_log_is_caught() {
    check_is_caught("log-sync-skipped", Scenario::PowerCuts, 1);
}

#[test]
fn an_acknowledgement_before_the_quorum_is_caught() {
    check_is_caught("acknowledged-before-quorum", Scenario::Cuts, 3);
}

#[test]
fn a_list_from_a_follower_is_caught() {
    check_is_caught("list-from-follower", Scenario::Faults, 3);
}

#[test]
fn an_epoch_that_is_not_checked_is_caught() {
    check_is_caught("epoch-unchecked", Scenario::LateWriters, 5);
}
