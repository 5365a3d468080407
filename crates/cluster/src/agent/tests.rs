//! What a node decides, case by case; what comes of it in a cluster is in `crate::tests`.

use base::GroupId;
use map::{Member, Node, Replicas, State};

use super::*;

const HERE: NodeId = NodeId(1);
const A: DeviceId = DeviceId(1);
const B: DeviceId = DeviceId(2);
const C: DeviceId = DeviceId(3);
const D: DeviceId = DeviceId(4);
const SHARD: ShardId = ShardId(3);

/// Each device is on a node of its own; A is here.
fn map(epoch: u64, voters: &[DeviceId], joining: &[DeviceId]) -> Map {
    let mut map = Map::default().with_devices([A, B, C, D]);
    map.groups.clear();
    map.epoch = Epoch(epoch);
    for (number, device) in (1..).zip(map.devices.values_mut()) {
        device.node = NodeId(number);
        map.nodes.insert(NodeId(number), Node::default());
    }
    let replicas = Replicas {
        epoch: Epoch(epoch),
        voters: voters.to_vec(),
        joining: joining.to_vec(),
        leaving: Vec::new(),
    };
    map.shards.insert(SHARD, replicas);
    map
}

fn replicas(devices: &[DeviceId]) -> BTreeMap<DeviceId, ReplicaId> {
    let each = devices.iter().map(|id| (*id, number(*id)));
    each.collect()
}

fn number(device: DeviceId) -> ReplicaId {
    ReplicaId(u64::try_from(device.0).unwrap() * 100)
}

fn led(voters: &[DeviceId], learners: &[DeviceId], ready: &[DeviceId]) -> Led {
    Led {
        shard: SHARD,
        leader: A,
        term: 7,
        voters: replicas(voters),
        learners: replicas(learners),
        ready: ready.iter().copied().collect(),
        near: BTreeSet::new(),
        is_settled: true,
    }
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn agent(map: Map) -> Agent {
    Agent::new(HERE, Config::default(), Arc::new(map))
}

impl Agent {
    fn tick(&mut self, at: f64, local: &[(DeviceId, ShardId)], led: &[Led]) -> Vec<Action> {
        let (local, led) = (local.to_vec(), led.to_vec());
        self.step(secs(at), Event::Tick { local, led })
    }

    /// A report that is answered at once. Gives the shards that it told of, too.
    fn hear(&mut self, at: f64, led: &[Led], reign: u64, map: Option<Map>) -> Heard {
        let round = self.begin(secs(at));
        let proved = round.shards().collect();
        let report = self.report(&round, &proved, led, Vec::new(), Vec::new());
        let told = report.shards.clone();
        let answered = Event::Answered {
            round,
            report,
            reign: Reign(reign),
            map: map.map(Arc::new),
        };
        let actions = self.step(secs(at), answered);
        Heard { told, actions }
    }
}

struct Heard {
    told: Vec<(ShardId, Membership)>,
    actions: Vec<Action>,
}

#[test]
fn the_fence_is_open_while_the_map_is_fresh() {
    let mut agent = agent(map(1, &[A], &[]));
    assert_eq!(agent.tick(0.0, &[], &[]), []);
    assert_eq!(agent.hear(1.0, &[], 1, None).actions, [Action::OpenFence]);
    assert_eq!(agent.tick(5.9, &[], &[]), []);
    assert_eq!(agent.tick(6.0, &[], &[]), [Action::CloseFence]);
    assert_eq!(agent.tick(7.0, &[], &[]), []);
    assert_eq!(agent.hear(8.0, &[], 1, None).actions, [Action::OpenFence]);
    // What counts is when the question was asked, not when its answer came.
    let round = agent.begin(secs(9.0));
    let late = Event::Answered {
        round,
        report: Report::default(),
        reign: Reign(1),
        map: None,
    };
    assert_eq!(agent.step(secs(14.5), late), [Action::CloseFence]);
}

#[test]
fn a_newer_map_is_adopted_and_an_older_one_is_not() {
    let mut agent = agent(map(5, &[A], &[]));
    let newer = map(6, &[A], &[]);
    let heard = agent.hear(0.0, &[], 1, Some(newer.clone())).actions;
    assert_eq!(heard, [Action::Adopt(Arc::new(newer)), Action::OpenFence]);
    assert_eq!(agent.hear(0.0, &[], 1, Some(map(4, &[A], &[]))).actions, []);
    assert_eq!(agent.map().epoch, Epoch(6));
}

#[test]
fn a_replica_is_destroyed_only_by_a_confirmed_map_that_has_its_shard() {
    let mut agent = agent(map(5, &[B], &[]));
    let local = [(A, SHARD), (A, ShardId(9))];
    assert_eq!(agent.tick(0.0, &local, &[]), []);
    agent.hear(0.0, &[], 1, None);
    let (device, shard) = (A, SHARD);
    let job = Job::Destroy { device, shard };
    assert_eq!(agent.tick(0.1, &local, &[]), [Action::Start(job.clone())]);
    // It is under way, fails, and is tried again after a while.
    assert_eq!(agent.tick(0.2, &local, &[]), []);
    let end = End::Failed;
    agent.step(
        secs(0.3),
        Event::Done {
            job: job.clone(),
            end,
        },
    );
    assert_eq!(agent.tick(1.2, &local, &[]), []);
    assert_eq!(agent.tick(1.3, &local, &[]), [Action::Start(job)]);
    // It joins or leaves: it is needed.
    for map in [map(6, &[B], &[A]), {
        let mut map = map(6, &[B], &[]);
        map.shards.get_mut(&SHARD).unwrap().leaving = vec![A];
        map
    }] {
        let mut agent = self::agent(map);
        agent.hear(0.0, &[], 1, None);
        assert_eq!(agent.tick(0.1, &local, &[]), []);
    }
}

#[test]
fn a_leader_acts_only_when_a_report_of_its_reign_was_answered() {
    let mut agent = agent(map(5, &[A, B, C], &[]));
    let now = [led(&[A], &[B, C], &[B, C])];
    // Answered before it was seen to lead.
    let early = agent.begin(secs(0.0));
    assert_eq!(agent.tick(0.0, &[], &now), []);
    let answered = |round, reign| Event::Answered {
        round,
        report: Report::default(),
        reign: Reign(reign),
        map: None,
    };
    agent.step(secs(0.1), answered(early, 1));
    assert_eq!(agent.tick(0.2, &[], &now), []);
    let round = agent.begin(secs(0.3));
    // Nothing is told, either.
    assert_eq!(round.shards().count(), 0);
    agent.step(secs(0.4), answered(round, 1));
    let [Action::Start(Job::Reshape { .. })] = agent.tick(0.5, &[], &now)[..] else {
        panic!("it does not act");
    };
    // It led, did not, and leads again: that is another reign.
    let again = Led {
        term: 9,
        ..now[0].clone()
    };
    let mut agent = self::agent(map(5, &[A, B, C], &[]));
    agent.tick(0.0, &[], &now);
    agent.hear(0.0, &now, 1, None);
    assert_eq!(agent.tick(0.1, &[], std::slice::from_ref(&again)), []);
    assert_eq!(agent.begin(secs(0.2)).shards().count(), 0);
}

#[track_caller]
fn check(map: Map, led: Led, expected: Option<Job>) {
    assert_eq!(shards::next(&map, &led), expected);
}

fn reshape(voters: &[DeviceId], learners: &[DeviceId], new: &[DeviceId]) -> Option<Job> {
    let numbered = |devices: &[DeviceId]| {
        let number = |id: &DeviceId| (!new.contains(id)).then(|| number(*id));
        devices.iter().map(|id| (*id, number(id))).collect()
    };
    Some(Job::Reshape {
        shard: SHARD,
        term: 7,
        voters: numbered(voters),
        learners: numbered(learners),
    })
}

#[test]
fn nobody_waits_for_a_voter_that_is_out_as_long_as_the_others_are_enough() {
    let mut broken = map(5, &[A, B, C], &[]);
    broken.devices.get_mut(&C).unwrap().state = State::Out;
    check(
        broken.clone(),
        led(&[A], &[B, C], &[B]),
        reshape(&[A, B, C], &[], &[]),
    );
    check(broken.clone(), led(&[A], &[B, C], &[]), None);
    broken.devices.get_mut(&B).unwrap().state = State::Out;
    check(broken, led(&[A], &[B, C], &[]), None);
}

#[test]
fn membership_becomes_what_the_map_says() {
    let transfer = |to| Some(Job::Transfer { shard: SHARD, to });
    // As it should be.
    check(map(5, &[A, B, C], &[]), led(&[A, B, C], &[], &[]), None);
    check(map(5, &[A], &[B, C]), led(&[A], &[B, C], &[]), None);
    // Somebody joins.
    check(
        map(5, &[A], &[B, C]),
        led(&[A], &[], &[]),
        reshape(&[A], &[B, C], &[B, C]),
    );
    check(
        map(5, &[A], &[B, C]),
        led(&[A], &[B], &[B]),
        reshape(&[A], &[B, C], &[C]),
    );
    // Somebody is to learn no more.
    check(
        map(5, &[A], &[]),
        led(&[A], &[B], &[]),
        reshape(&[A], &[], &[]),
    );
    // They vote, when they have caught up.
    check(map(5, &[A, B, C], &[]), led(&[A], &[B, C], &[B]), None);
    check(
        map(5, &[A, B, C], &[]),
        led(&[A], &[B, C], &[B, C]),
        reshape(&[A, B, C], &[], &[]),
    );
    // They never learned, whatever the reason.
    check(
        map(5, &[A, B, C], &[]),
        led(&[A], &[], &[]),
        reshape(&[A], &[B, C], &[B, C]),
    );
    // One goes.
    check(
        map(5, &[A, B, D], &[]),
        led(&[A, B, C], &[D], &[D]),
        reshape(&[A, B, D], &[], &[]),
    );
    // The leader goes: somebody else is to do it, if there is one.
    check(
        map(5, &[B, C, D], &[]),
        led(&[A, B, C], &[D], &[D]),
        transfer(B),
    );
    check(
        map(5, &[B], &[]),
        led(&[A], &[B], &[B]),
        reshape(&[B], &[], &[]),
    );
    // A change is under way.
    let unsettled = Led {
        is_settled: false,
        ..led(&[A], &[], &[])
    };
    check(map(5, &[A], &[B, C]), unsettled, None);
    // The map does not know it yet.
    let unknown = Led {
        shard: ShardId(8),
        ..led(&[A], &[B], &[])
    };
    check(map(5, &[A], &[]), unknown, None);
    // It is led by whom the map says, if that one is up and has everything.
    let wanted = map(5, &[B, A, C], &[]);
    check(wanted.clone(), led(&[A, B, C], &[], &[B]), transfer(B));
    check(wanted, led(&[A, B, C], &[], &[C]), None);
    let mut down = map(5, &[B, A, C], &[]);
    down.nodes.get_mut(&NodeId(2)).unwrap().state = State::Out;
    check(down, led(&[A, B, C], &[], &[B]), None);
    // The voters are changed only to some of whom most are up.
    let mut down = map(5, &[A, B, C], &[]);
    for node in [2, 3] {
        down.nodes.get_mut(&NodeId(node)).unwrap().state = State::Out;
    }
    check(down, led(&[A], &[B, C], &[B, C]), None);
}

#[test]
fn a_transfer_is_not_asked_for_all_the_time() {
    let mut agent = agent(map(5, &[B, A, C], &[]));
    let now = [led(&[A, B, C], &[], &[B])];
    agent.tick(0.0, &[], &now);
    agent.hear(0.0, &now, 1, None);
    let job = Job::Transfer {
        shard: SHARD,
        to: B,
    };
    assert_eq!(agent.tick(0.1, &[], &now), [Action::Start(job.clone())]);
    let end = End::Well;
    agent.step(
        secs(0.2),
        Event::Done {
            job: job.clone(),
            end,
        },
    );
    agent.hear(4.0, &now, 1, None);
    assert_eq!(agent.tick(5.1, &[], &now), []);
    assert_eq!(agent.tick(5.2, &[], &now), [Action::Start(job)]);
}

#[test]
fn a_membership_is_told_once_and_again_when_it_matters() {
    let mut agent = agent(map(5, &[A], &[B, C]));
    let mut now = [led(&[A], &[B, C], &[])];
    agent.tick(0.0, &[], &now);
    assert_eq!(agent.hear(0.0, &now, 1, None).told, []);
    let told = agent.hear(0.1, &now, 1, None).told;
    let membership = Membership {
        epoch: Epoch(5),
        voters: [A].into(),
        learners: [B, C].into(),
        ready: BTreeSet::new(),
    };
    assert_eq!(told, [(SHARD, membership)]);
    assert_eq!(agent.hear(0.2, &now, 1, None).told, []);
    // One has caught up.
    now[0].ready.insert(B);
    agent.tick(0.3, &[], &now);
    assert_eq!(agent.hear(0.3, &now, 1, None).told.len(), 1);
    assert_eq!(agent.hear(0.4, &now, 1, None).told.len(), 0);
    // Another controller knows nothing; we learn of it by its answer.
    assert_eq!(agent.hear(0.5, &now, 2, None).told.len(), 0);
    assert_eq!(agent.hear(0.6, &now, 2, None).told.len(), 1);
    // The shard has changed in the map.
    assert_eq!(
        agent
            .hear(0.7, &now, 2, Some(map(6, &[A], &[B])))
            .told
            .len(),
        0
    );
    assert_eq!(agent.hear(0.8, &now, 2, None).told[0].1.epoch, Epoch(6));
    // The map has changed elsewhere.
    let mut elsewhere = map(6, &[A], &[B]);
    elsewhere.epoch = Epoch(7);
    agent.hear(0.9, &now, 2, Some(elsewhere));
    assert_eq!(agent.hear(1.0, &now, 2, None).told.len(), 0);
}

#[test]
fn a_membership_that_is_being_changed_is_not_told() {
    let mut agent = agent(map(5, &[A], &[B, C]));
    let before = [led(&[A], &[], &[])];
    agent.tick(0.0, &[], &before);
    agent.hear(0.0, &before, 1, None);
    let actions = agent.tick(0.1, &[], &before);
    let [Action::Start(job)] = &actions[..] else {
        panic!("{actions:?}");
    };
    let now = [led(&[A], &[B, C], &[])];
    agent.tick(0.2, &[], &now);
    assert_eq!(agent.begin(secs(0.2)).shards().count(), 0);
    let (job, end) = (job.clone(), End::Well);
    agent.step(secs(0.3), Event::Done { job, end });
    assert_eq!(agent.begin(secs(0.3)).shards().count(), 1);
}

#[test]
fn what_is_not_proved_in_time_is_not_told() {
    let mut agent = agent(map(5, &[A], &[]));
    let now = [led(&[A], &[], &[])];
    agent.tick(0.0, &[], &now);
    agent.hear(0.0, &now, 1, None);
    let round = agent.begin(secs(0.1));
    assert_eq!(round.shards().collect::<Vec<_>>(), [SHARD]);
    let told = |proved: &[ShardId], led: &[Led]| {
        let proved = proved.iter().copied().collect();
        let report = agent.report(&round, &proved, led, Vec::new(), Vec::new());
        report.shards.len()
    };
    assert_eq!(told(&[SHARD], &now), 1);
    assert_eq!(told(&[], &now), 0);
    let mut other = now.clone();
    other[0].term += 1;
    assert_eq!(told(&[SHARD], &other), 0);
    let mut unsettled = now.clone();
    unsettled[0].is_settled = false;
    assert_eq!(told(&[SHARD], &unsettled), 0);
    assert_eq!(told(&[SHARD], &[]), 0);
}

#[test]
fn a_report_is_of_the_map_that_was_there_before_the_proof() {
    let mut agent = agent(map(5, &[A], &[]));
    let now = [led(&[A], &[], &[])];
    agent.tick(0.0, &[], &now);
    agent.hear(0.0, &now, 1, None);
    let round = agent.begin(secs(0.1));
    agent.hear(0.2, &now, 1, Some(map(6, &[A], &[])));
    let proved = [SHARD].into();
    let report = agent.report(&round, &proved, &now, Vec::new(), Vec::new());
    assert_eq!(report.shards[0].1.epoch, Epoch(5));
}

#[test]
fn filling_members_of_this_node_are_filled_and_reported() {
    let since = Epoch(5);
    let mut map = map(5, &[A], &[]);
    let member = |device, fill| Member {
        device,
        index: 0,
        fill,
    };
    for group in 0..4 {
        let group_of = map::Group {
            members: vec![
                member(B, Fill::Full),
                member(A, Fill::Filling { since }),
                member(C, Fill::Filling { since }),
            ],
            ..map::Group::new(Map::POLICY, since, &[], false)
        };
        map.groups.insert(GroupId(group), group_of);
    }
    // Nobody can be asked.
    map.groups.get_mut(&GroupId(1)).unwrap().members[0].device = DeviceId(9);
    let mut agent = agent(map.clone());
    agent.hear(0.0, &[], 1, None);
    let job = |group| Job::Fill {
        filled: Filled {
            group: GroupId(group),
            device: A,
            since,
        },
        members: vec![B, A, C],
    };
    // Two at a time.
    let start = |group| Action::Start(job(group));
    assert_eq!(agent.tick(0.1, &[], &[]), [start(0), start(2)]);
    let end = End::Well;
    agent.step(secs(0.2), Event::Done { job: job(0), end });
    assert_eq!(agent.tick(0.3, &[], &[]), [start(3)]);
    let round = agent.begin(secs(0.4));
    let filled = |agent: &Agent| {
        let report = agent.report(&round, &BTreeSet::new(), &[], Vec::new(), Vec::new());
        report.filled
    };
    let Job::Fill { filled: first, .. } = job(0) else {
        panic!("it is one");
    };
    assert_eq!(filled(&agent), [first]);
    // The controller knows.
    map.epoch = Epoch(6);
    map.groups.get_mut(&GroupId(0)).unwrap().members[1].fill = Fill::Full;
    agent.hear(0.5, &[], 1, Some(map));
    assert_eq!(filled(&agent), []);
}
