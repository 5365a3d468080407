//! The controller by itself; what it does with agents is in `crate::tests`.

use std::collections::BTreeSet;
use std::time::Duration;

use base::{GroupId, ShardId, Timestamp};
use map::{Membership, Node, State};

use super::*;
use crate::report::Filled;

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const A: DeviceId = DeviceId(10);
const B: DeviceId = DeviceId(20);
const SIZE: u64 = 1 << 40;

fn at(secs: f64) -> Now {
    let passed = Duration::from_secs_f64(1000.0 + secs);
    Now {
        monotonic: passed,
        wall: Timestamp::from_secs(1_800_000_000).after(passed),
    }
}

/// Two nodes with a device each, of which the sizes are known.
fn map() -> Map {
    let mut map = Map::default().with_devices([A, B]);
    map.nodes.insert(SECOND, Node::default());
    map.last_node = SECOND;
    map.devices.get_mut(&B).unwrap().node = SECOND;
    for device in map.devices.values_mut() {
        (device.bytes, device.bytes_free) = (SIZE, SIZE);
    }
    map
}

fn controller(map: Map) -> Controller {
    Controller::new(
        health::Config::default(),
        Arc::new(map),
        &BTreeMap::new(),
        at(0.0),
    )
}

fn device(device: DeviceId) -> DeviceReport {
    DeviceReport {
        device,
        bytes: SIZE,
        bytes_free: SIZE,
        condition: Condition::Good,
    }
}

fn report(devices: &[DeviceReport]) -> Report {
    Report {
        devices: devices.to_vec(),
        ..Report::default()
    }
}

impl Controller {
    /// Both nodes report that all is well.
    fn hear_all(&mut self, secs: f64) {
        self.step(at(secs), Event::Report(FIRST, report(&[device(A)])));
        self.step(at(secs), Event::Report(SECOND, report(&[device(B)])));
    }

    /// Lets it make all changes that it wants, and gives the steps.
    fn settle(&mut self, secs: f64) -> Vec<Step> {
        let mut all = Vec::new();
        while let Some(change) = self.step(at(secs), Event::Tick) {
            assert_eq!(change.from, self.map.epoch);
            let map = self.map.after(&change.steps);
            all.extend(change.steps);
            self.step(at(secs), Event::Map(Arc::new(map)));
        }
        all
    }
}

#[test]
fn a_silent_node_is_down_and_then_out_and_up_again() {
    let mut controller = controller(map());
    controller.hear_all(0.0);
    controller.settle(0.0);
    let state = |controller: &Controller| controller.map.nodes[&SECOND].state;
    for half in 1..8 {
        let secs = f64::from(half) / 2.0;
        controller.step(at(secs), Event::Report(FIRST, report(&[device(A)])));
        controller.settle(secs);
        assert_eq!(
            state(&controller) == State::Up,
            secs < 2.0,
            "after {secs} s"
        );
    }
    // Its device is as it was: nobody knows better.
    assert_eq!(controller.map.devices[&B].state, State::Up);
    assert_eq!(controller.map.nodes[&FIRST].state, State::Up);
    for half in 8..1205 {
        let secs = f64::from(half) / 2.0;
        controller.step(at(secs), Event::Report(FIRST, report(&[device(A)])));
        controller.settle(secs);
        assert_eq!(
            state(&controller) == State::Out,
            secs >= 602.0,
            "after {secs} s"
        );
    }
    for half in 1205..1208 {
        assert_eq!(state(&controller), State::Out);
        controller.hear_all(f64::from(half) / 2.0);
        controller.settle(f64::from(half) / 2.0);
    }
    assert_eq!(state(&controller), State::Up);
}

#[test]
fn a_new_controller_declares_nobody_down_before_it_has_listened() {
    let mut controller = controller(map());
    let is_state = |step: &Step| matches!(step, Step::NodeState { .. } | Step::DeviceState { .. });
    for secs in [0.5, 1.0, 1.5, 1.9] {
        assert!(!controller.settle(secs).iter().any(is_state));
    }
    let steps = controller.settle(2.0);
    assert_eq!(
        steps.iter().filter(|step| is_state(step)).count(),
        2,
        "{steps:?}"
    );
}

#[test]
fn who_died_before_the_takeover_is_down_one_silence_after_it_was_heard() {
    let heard = [(SECOND, at(-1.0).monotonic)].into();
    let config = health::Config::default();
    let mut controller = Controller::new(config, Arc::new(map()), &heard, at(0.0));
    let report = || Event::Report(FIRST, report(&[device(A)]));
    controller.step(at(0.0), report());
    let is_down = |step: &Step| matches!(step, Step::NodeState { node: SECOND, .. });
    assert!(!controller.settle(0.9).iter().any(is_down));
    controller.step(at(0.9), report());
    let steps = controller.settle(1.0);
    assert!(steps.iter().any(is_down), "{steps:?}");
    assert_eq!(controller.map.nodes[&FIRST].state, State::Up);
}

#[test]
fn a_controller_that_stood_still_declares_nobody_down() {
    let mut controller = controller(map());
    controller.hear_all(0.0);
    controller.settle(0.0);
    let is_state = |step: &Step| matches!(step, Step::NodeState { .. });
    assert!(!controller.settle(5.0).iter().any(is_state));
    assert!(!controller.settle(6.0).iter().any(is_state));
    assert!(!controller.settle(6.9).iter().any(is_state));
    assert!(controller.settle(7.0).iter().any(is_state));
}

#[test]
fn a_broken_or_missing_device_is_down_while_its_node_is_up() {
    let mut controller = controller(map());
    controller.hear_all(0.0);
    controller.settle(0.0);
    let broken = DeviceReport {
        condition: Condition::Broken,
        ..device(B)
    };
    controller.step(at(0.5), Event::Report(SECOND, report(&[broken])));
    controller.settle(0.5);
    let since = at(0.5).wall;
    assert_eq!(controller.map.devices[&B].state, State::Down { since });
    assert_eq!(controller.map.nodes[&SECOND].state, State::Up);
    // The first node comes without its device.
    for half in 1..=4 {
        let secs = f64::from(half) / 2.0;
        controller.step(at(secs), Event::Report(FIRST, report(&[])));
        controller.settle(secs);
    }
    let since = at(2.0).wall;
    assert_eq!(controller.map.devices[&A].state, State::Down { since });
    assert_eq!(controller.map.nodes[&FIRST].state, State::Up);
}

#[test]
fn space_is_published_when_it_matters() {
    let mut controller = controller(map());
    let mut said = |bytes: u64, bytes_free: u64| {
        let device = DeviceReport {
            bytes,
            bytes_free,
            ..device(A)
        };
        controller.step(at(0.1), Event::Report(FIRST, report(&[device])));
        let steps = controller.settle(0.1);
        steps.iter().any(|step| matches!(step, Step::Space { .. }))
    };
    assert!(!said(SIZE, SIZE));
    assert!(!said(SIZE, SIZE - SIZE / 16));
    assert!(said(SIZE, SIZE - SIZE / 16 - 1));
    assert!(!said(SIZE, SIZE - SIZE / 16));
    assert!(said(SIZE, 5));
    assert!(said(SIZE, 0));
    assert!(!said(SIZE, 0));
    assert!(said(SIZE, 5));
    assert!(said(SIZE + 1, 5));
}

#[test]
fn a_node_may_move() {
    let mut controller = controller(map());
    let address = "10.0.0.9:7000".to_owned();
    let moved = Report {
        addresses: vec![address.clone()],
        ..report(&[device(A)])
    };
    controller.step(at(0.1), Event::Report(FIRST, moved));
    controller.settle(0.1);
    let moved = vec![address];
    assert_eq!(controller.map.nodes[&FIRST].addresses, moved);
    // Who says nothing stays where it is.
    controller.step(at(0.2), Event::Report(FIRST, report(&[device(A)])));
    controller.settle(0.2);
    assert_eq!(controller.map.nodes[&FIRST].addresses, moved);
}

#[test]
fn one_change_at_a_time() {
    let mut controller = controller(map());
    controller.hear_all(0.0);
    let first = controller.step(at(0.0), Event::Tick);
    assert!(first.is_some(), "groups are made");
    assert_eq!(controller.step(at(0.1), Event::Tick), None);
    // It was not made: it is wanted again.
    controller.step(at(0.1), Event::Failed);
    assert_eq!(controller.step(at(0.1), Event::Tick), first);
    // It was made on another map: what is wanted then depends on that.
    let other = Map {
        epoch: Epoch(9),
        ..map()
    };
    controller.step(at(0.2), Event::Map(Arc::new(other)));
    let change = controller.step(at(0.2), Event::Tick).unwrap();
    assert_eq!(change.from, Epoch(9));
    // An old map is not news.
    controller.step(at(0.3), Event::Map(Arc::new(map())));
    assert_eq!(controller.map.epoch, Epoch(9));
}

#[test]
fn strangers_and_foreign_devices_are_not_listened_to() {
    let mut controller = controller(map());
    let less = DeviceReport {
        bytes_free: 1,
        ..device(B)
    };
    controller.step(at(0.1), Event::Report(FIRST, report(&[less])));
    controller.step(at(0.1), Event::Report(NodeId(9), report(&[less])));
    let steps = controller.settle(0.1);
    assert!(!steps.iter().any(|step| matches!(step, Step::Space { .. })));
}

#[test]
fn what_a_node_has_got_comes_into_the_map_and_what_was_removed_does_not() {
    let mut controller = controller(map());
    controller.hear_all(0.0);
    controller.settle(0.0);
    let new = |id| DeviceReport {
        condition: Condition::New,
        ..device(id)
    };
    let (got, removed) = (DeviceId(77), DeviceId(78));
    // A stranger's, and what another node has, are not this node's.
    let said = [device(B), new(got), device(removed), new(A)];
    controller.step(at(0.1), Event::Report(NodeId(9), report(&[new(got)])));
    controller.step(at(0.1), Event::Report(SECOND, report(&said)));
    controller.settle(0.1);
    let known = &controller.map.devices[&got];
    assert_eq!((known.node, known.bytes), (SECOND, SIZE));
    assert_eq!(controller.map.devices.len(), 3);
    assert_eq!(controller.map.devices[&A].node, FIRST);
    // It may call itself new until it has heard of the map.
    let epoch = controller.map.epoch;
    controller.step(
        at(0.2),
        Event::Report(SECOND, report(&[device(B), new(got)])),
    );
    controller.settle(0.2);
    assert_eq!(controller.map.epoch, epoch);
}

#[test]
fn of_a_shard_the_newest_report_counts() {
    let mut controller = controller(map());
    let say = |epoch, voter| Report {
        shards: vec![(
            ShardId(0),
            Membership {
                epoch: Epoch(epoch),
                voters: [voter].into(),
                ..Membership::default()
            },
        )],
        ..Report::default()
    };
    let mut voters = |epoch, voter| {
        controller.step(at(0.1), Event::Report(FIRST, say(epoch, voter)));
        controller.observed().shards[&ShardId(0)].voters.clone()
    };
    assert_eq!(voters(5, A), BTreeSet::from([A]));
    assert_eq!(voters(4, B), BTreeSet::from([A]));
    assert_eq!(voters(5, B), BTreeSet::from([B]));
    assert_eq!(voters(6, A), BTreeSet::from([A]));
}

#[test]
fn only_members_that_are_filling_are_filled() {
    let group = GroupId(0);
    let filling = map().after(&[Step::Add {
        index: 0,
        group,
        device: B,
    }]);
    let since = filling.epoch;
    let mut controller = controller(filling);
    let say = |since| Report {
        filled: vec![Filled {
            group,
            device: B,
            since,
        }],
        ..report(&[device(B)])
    };
    controller.step(at(0.0), Event::Report(FIRST, report(&[device(A)])));
    controller.step(at(0.0), Event::Report(SECOND, say(Epoch(since.0 - 1))));
    assert!(controller.observed().filled.is_empty());
    controller.step(at(0.1), Event::Report(SECOND, say(since)));
    assert_eq!(controller.observed().filled.len(), 1);
    let steps = controller.settle(0.1);
    assert!(
        steps.contains(&Step::Filled { group, device: B }),
        "{steps:?}"
    );
    assert!(controller.observed().filled.is_empty());
}
