//! What was saved comes back, and what cannot come back is said.

use e2e::backup::{self, Index};
use e2e::binary::{Build, martlet};
use fastrand::Rng;

fn random() -> Rng {
    let seed = e2e::seed();
    eprintln!("E2E_SEED={seed}");
    Rng::with_seed(seed)
}

#[test]
fn a_backup_under_load_brings_back_all_that_was_acknowledged_before_it() {
    let binary = martlet(Build::Plain).expect("it builds");
    let (before, all) = backup::under_load(&binary, &mut random()).expect("all comes back");
    eprintln!("{before} writes before the backup, {all} in all");
}

#[test]
fn a_backup_without_the_disks_brings_back_small_bodies_and_names_the_others() {
    let binary = martlet(Build::Plain).expect("it builds");
    let cut = backup::without_disks(&binary, &mut random()).expect("what is missing is named");
    eprintln!("{cut} restores were killed half-way");
}

#[test]
fn a_server_killed_while_it_is_saved_loses_nothing_and_leaves_no_half_backup() {
    let binary = martlet(Build::Plain).expect("it builds");
    let rounds = 6;
    let whole = backup::killed(&binary, rounds, &mut random()).expect("nothing is lost");
    eprintln!("{whole} of {rounds} backups were whole");
}

#[test]
fn large_bodies_are_rebuilt_from_their_records_alone() {
    let binary = martlet(Build::Plain).expect("it builds");
    for index in [Index::Kept, Index::Lost] {
        let there = backup::rebuilt(&binary, index, &mut random()).expect("all comes back");
        eprintln!("{there} bodies with the index {index:?}");
    }
}

#[test]
fn a_backup_in_another_store_is_as_good_as_one_in_a_directory() {
    let binary = martlet(Build::Plain).expect("it builds");
    backup::to_a_store(&binary, &mut random()).expect("all comes back");
}
