//! Clients that people use store a tree of files and get it back.

use e2e::binary::{Build, martlet};
use e2e::clients::{Effort, Trial, has_rclone};
use e2e::may_skip;

fn trial() -> Trial {
    let binary = martlet(Build::Plain).expect("it builds");
    let effort = Effort {
        files: 300,
        bytes: 30 << 20,
        kill: false,
    };
    Trial::prepare(&binary, effort).expect("a server and a tree")
}

#[test]
fn python_swiftclient_keeps_a_tree() {
    trial().swift().expect("the tree comes back");
}

#[test]
fn rclone_keeps_a_tree() {
    if may_skip(has_rclone(), "needs rclone") {
        trial().rclone().expect("the tree comes back");
    }
}
