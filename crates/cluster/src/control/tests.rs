//! The procedures, on a shard in memory.

use std::time::Duration;

use base::{GroupId, ShardId};
use map::{Epoch, State, Step};
use rpc::{Authority, Fingerprint, JoinToken};
use shard::{Procedure, Shard, Shards};
use testkit::SimClock;

use super::*;
use crate::report::Reign;

const A: DeviceId = DeviceId(1);
const B: DeviceId = DeviceId(2);
const C: DeviceId = DeviceId(3);
const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);

struct World {
    env: base::env::Env,
    clock: SimClock,
    shard: Shard,
}

impl World {
    /// A cluster of one node with device A.
    async fn new() -> Self {
        let (env, _, clock) = testkit::env(1, 1 << 20);
        let shard = Shards::volatile(&env, 1).get(ShardId::CONTROL).clone();
        let world = Self { env, clock, shard };
        world
            .run(Found {
                devices: vec![A],
                new: vec![],
                addresses: vec!["first:7000".to_owned()],
            })
            .await
            .unwrap();
        world
    }

    async fn run<P: Procedure<Error = Refusal>>(&self, procedure: P) -> Result<P::Output, Refusal> {
        match self.shard.execute(procedure).await {
            Ok(output) => Ok(output),
            Err(Execution::Refused(refusal)) => Err(refusal),
            Err(Execution::Shard(error)) => panic!("{error}"),
        }
    }

    async fn map(&self) -> Map {
        let known = Epoch(0);
        let row = self.shard.query(ReadMap { known }).await.unwrap();
        Map::decode(&row.expect("there is a map")).unwrap()
    }

    /// Changes the map as a controller does.
    async fn advance(&self, steps: Vec<Step>) {
        let reign = Reign(77);
        let from = self.run(Seize { reign }).await.unwrap().epoch;
        self.run(Advance { reign, from, steps }).await.unwrap();
    }

    async fn token(&self, lasts: Duration) -> JoinToken {
        let expires = self.env.clock.now().after(lasts);
        let token = JoinToken::new(&*self.env.entropy, expires, Fingerprint([7; 32]));
        let record = token.record();
        self.run(AddToken { record }).await.unwrap();
        token
    }

    async fn join(&self, token: &JoinToken, key: u8, device: DeviceId) -> Result<Joined, Refusal> {
        let request = request(token, key, device);
        self.run(Join { request }).await
    }
}

fn request(token: &JoinToken, key: u8, device: DeviceId) -> JoinRequest {
    JoinRequest {
        token: token.id,
        secret: token.secret.clone(),
        public_key: vec![key; 65],
        addresses: vec![format!("10.0.0.{key}:7000")],
        zone: "cellar".to_owned(),
        devices: vec![(device, 1 << 40)],
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_node_joins_with_a_token_in_one_commit() {
    let world = World::new().await;
    let before = world.map().await;
    let token = world.token(HOUR).await;
    let Joined { node, map } = world.join(&token, 1, B).await.unwrap();
    assert_eq!((node, map.epoch), (SECOND, before.epoch.next()));
    assert_eq!(map, world.map().await);
    assert_eq!(map.nodes[&SECOND].addresses, ["10.0.0.1:7000"]);
    assert_eq!(map.nodes[&SECOND].zone, "cellar");
    let device = &map.devices[&B];
    assert_eq!((device.node, device.bytes), (SECOND, 1 << 40));
    assert_eq!(map.last_node, SECOND);
    let tokens = world.shard.query(ListTokens {}).await.unwrap();
    assert_eq!(tokens[0].used_by, Some(SECOND));
}

#[tokio::test]
async fn a_token_lets_one_node_in_however_often_it_asks() {
    let world = World::new().await;
    let token = world.token(HOUR).await;
    let first = world.join(&token, 1, B).await.unwrap();
    // The answer was lost.
    assert_eq!(world.join(&token, 1, B).await.unwrap(), first);
    // Somebody else has found the token.
    let used = Err(Refusal::TokenUsed(SECOND));
    assert_eq!(world.join(&token, 2, C).await, used);
    assert_eq!(world.map().await, first.map);
    // The answer was lost, and the token has expired since.
    world.clock.advance(HOUR);
    let expired = Err(Refusal::TokenExpired(token.expires));
    assert_eq!(world.join(&token, 1, B).await, expired);
    let another = world.token(HOUR).await;
    assert_eq!(world.join(&another, 1, B).await.unwrap(), first);
    assert_eq!(world.join(&another, 3, C).await, used);
    let third = world.token(HOUR).await;
    let third = world.join(&third, 3, C).await.unwrap();
    assert_eq!(third.node, NodeId(3));
}

#[tokio::test]
async fn bad_tokens_are_refused_and_change_nothing() {
    let world = World::new().await;
    let before = world.map().await;
    let token = world.token(HOUR).await;
    let mut guessed = request(&token, 1, B);
    guessed.secret = JoinToken::new(&*world.env.entropy, token.expires, token.authority).secret;
    let wrong = world.run(Join { request: guessed }).await;
    assert_eq!(wrong, Err(Refusal::WrongSecret));
    let mut unknown = request(&token, 1, B);
    unknown.token += 1;
    let unknown = world.run(Join { request: unknown }).await;
    assert_eq!(unknown, Err(Refusal::NoToken));
    let removed = world.token(HOUR).await;
    world.run(RemoveToken { id: removed.id }).await.unwrap();
    assert_eq!(world.join(&removed, 1, B).await, Err(Refusal::NoToken));
    let again = world.run(RemoveToken { id: removed.id }).await;
    assert_eq!(again, Err(Refusal::NoToken));
    world.clock.advance(HOUR);
    let expired = Err(Refusal::TokenExpired(token.expires));
    assert_eq!(world.join(&token, 1, B).await, expired);
    assert_eq!(world.map().await, before);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_does_not_use_the_token() {
    let world = World::new().await;
    let token = world.token(HOUR).await;
    assert_eq!(world.join(&token, 1, A).await, Err(Refusal::DeviceKnown(A)));
    let good = request(&token, 1, B);
    let none: Vec<String> = Vec::new();
    let bad = [
        JoinRequest {
            devices: Vec::new(),
            ..good.clone()
        },
        JoinRequest {
            addresses: none,
            ..good.clone()
        },
        JoinRequest {
            addresses: vec!["a".repeat(300)],
            ..good.clone()
        },
        JoinRequest {
            public_key: vec![4; 300],
            ..good.clone()
        },
    ];
    for request in bad {
        assert_eq!(world.run(Join { request }).await, Err(Refusal::BadRequest));
    }
    let zone = "z".repeat(65);
    let request = JoinRequest {
        zone,
        ..good.clone()
    };
    assert_eq!(world.run(Join { request }).await, Err(Refusal::ZoneTooLong));
    let twice = vec![(B, 1), (B, 1)];
    let request = JoinRequest {
        devices: twice,
        ..good.clone()
    };
    assert_eq!(
        world.run(Join { request }).await,
        Err(Refusal::DeviceKnown(B))
    );
    world.run(Join { request: good }).await.unwrap();
}

#[tokio::test]
async fn expired_tokens_are_forgotten_and_there_are_not_too_many() {
    let world = World::new().await;
    for _ in 0..tokens::TOKENS_MAX {
        world.token(HOUR).await;
    }
    let expires = world.env.clock.now().after(HOUR);
    let token = JoinToken::new(&*world.env.entropy, expires, Fingerprint([7; 32]));
    let record = token.record();
    let full = world
        .run(AddToken {
            record: record.clone(),
        })
        .await;
    assert_eq!(full, Err(Refusal::TooManyTokens(tokens::TOKENS_MAX)));
    world.clock.advance(HOUR);
    world.run(AddToken { record }).await.unwrap();
    let tokens = world.shard.query(ListTokens {}).await.unwrap();
    assert_eq!(tokens.len(), 1);
}

#[tokio::test]
async fn a_cluster_has_one_authority() {
    let world = World::new().await;
    let view = || async { world.shard.view().await.unwrap() };
    let none = row::authority(&view().await).unwrap_err();
    assert_eq!(none, Execution::Refused(Refusal::NoAuthority));
    let [first, second] = [1, 1].map(|cluster| Authority::new(cluster).unwrap());
    for authority in [&first, &second] {
        let pem = authority.to_pem();
        world.run(Establish { pem }).await.unwrap();
    }
    let kept = row::authority(&view().await).unwrap();
    assert_eq!(kept.fingerprint(), first.fingerprint());
}

#[tokio::test]
async fn only_the_present_reign_changes_the_map_that_it_planned_on() {
    let world = World::new().await;
    let steps = vec![Step::NodeState {
        node: FIRST,
        state: State::Out,
    }];
    let (old, new) = (Reign(1), Reign(2));
    let before = world.map().await;
    let from = before.epoch;
    let advance = |reign, from| Advance {
        reign,
        from,
        steps: steps.clone(),
    };
    assert_eq!(world.run(advance(old, from)).await, Err(Refusal::Deposed));
    assert_eq!(world.run(Seize { reign: old }).await.unwrap(), before);
    world.run(Seize { reign: new }).await.unwrap();
    assert_eq!(world.run(advance(old, from)).await, Err(Refusal::Deposed));
    // Somebody else has changed the map.
    let node = FIRST;
    let zone = "roof".to_owned();
    world.run(SetZone { node, zone }).await.unwrap();
    let overtaken = Err(Refusal::Overtaken(from.next()));
    assert_eq!(world.run(advance(new, from)).await, overtaken);
    let after = world.run(advance(new, from.next())).await.unwrap();
    assert_eq!(after.nodes[&FIRST].state, State::Out);
    assert_eq!(world.map().await, after);
    // A change is made once.
    let again = world.run(advance(new, from.next())).await;
    assert_eq!(again, Err(Refusal::Overtaken(after.epoch)));
}

#[tokio::test]
async fn a_map_is_read_only_if_it_is_newer() {
    let world = World::new().await;
    let epoch = world.map().await.epoch;
    let same = world.shard.query(ReadMap { known: epoch }).await.unwrap();
    assert_eq!(same, None);
}

#[tokio::test]
async fn nodes_are_drained_and_used_again_but_never_all() {
    let world = World::new().await;
    let token = world.token(HOUR).await;
    world.join(&token, 1, B).await.unwrap();
    let drain = |node, is_draining| Drain {
        part: Part::Node(node),
        is_draining,
    };
    world.run(drain(FIRST, true)).await.unwrap();
    let epoch = world.map().await.epoch;
    // Once is enough.
    world.run(drain(FIRST, true)).await.unwrap();
    assert_eq!(world.map().await.epoch, epoch);
    assert!(world.map().await.nodes[&FIRST].is_draining);
    assert_eq!(world.run(drain(SECOND, true)).await, Err(Refusal::Last));
    world.run(drain(FIRST, false)).await.unwrap();
    world.run(drain(SECOND, true)).await.unwrap();
    let nobody = Err(Refusal::Unknown(Part::Node(NodeId(9))));
    assert_eq!(world.run(drain(NodeId(9), false)).await, nobody);
    let zone = "z".repeat(65);
    let long = world.run(SetZone { node: FIRST, zone }).await;
    assert_eq!(long, Err(Refusal::ZoneTooLong));
}

/// Three nodes; the second holds what `hold` makes it hold.
async fn holding(members: &[DeviceId], voters: &[DeviceId]) -> World {
    let world = World::new().await;
    for (key, device) in [(1, B), (2, C)] {
        let token = world.token(HOUR).await;
        world.join(&token, key, device).await.unwrap();
    }
    let mut steps = Vec::new();
    if !members.is_empty() {
        let members = members.to_vec();
        steps.push(Step::Make {
            policy: Map::POLICY,
            group: GroupId(5),
            members,
            is_spare: false,
        });
    }
    if !voters.is_empty() {
        let voters = voters.to_vec();
        steps.push(Step::Found {
            shard: ShardId(3),
            voters,
        });
    }
    if !steps.is_empty() {
        world.advance(steps).await;
    }
    world
}

#[tokio::test]
async fn a_node_is_removed_when_it_holds_nothing_or_nothing_is_lost() {
    let node = SECOND;
    let part = Part::Node(node);
    let remove = |losses| Remove { part, losses };
    let refused = || remove(Losses::Refused);

    let empty = holding(&[], &[]).await;
    empty.run(refused()).await.unwrap();
    let map = empty.map().await;
    assert!(!map.nodes.contains_key(&SECOND) && !map.devices.contains_key(&B));
    assert_eq!(map.last_node, NodeId(3));
    assert_eq!(empty.run(refused()).await, Err(Refusal::Unknown(part)));

    let holds = |groups, shards| {
        Err(Refusal::Holds {
            part,
            groups,
            shards,
        })
    };
    let only = |groups, shards| {
        Err(Refusal::OnlyCopy {
            part,
            groups,
            shards,
        })
    };
    for (members, voters, count, alone) in [
        (&[A, B, C][..], &[][..], (1, 0), (0, 0)),
        (&[], &[A, B, C], (0, 1), (0, 0)),
        (&[B], &[A, B, C], (1, 1), (1, 0)),
        (&[A, B], &[B], (1, 1), (0, 1)),
    ] {
        let world = holding(members, voters).await;
        for losses in [Losses::Refused, Losses::Accepted] {
            let up = world.run(remove(losses)).await;
            assert_eq!(up, holds(count.0, count.1));
        }
        world
            .advance(vec![Step::NodeState {
                node,
                state: State::Out,
            }])
            .await;
        let lost = world.run(refused()).await;
        if alone == (0, 0) {
            assert_eq!(lost, Ok(()));
        } else {
            assert_eq!(lost, only(alone.0, alone.1));
            world.run(remove(Losses::Accepted)).await.unwrap();
        }
        assert!(!world.map().await.nodes.contains_key(&SECOND));
    }
}

#[tokio::test]
async fn a_removed_device_does_not_come_back_by_itself() {
    let world = World::new().await;
    let found = |devices: &[DeviceId], new: &[DeviceId]| Found {
        devices: devices.to_vec(),
        new: new.to_vec(),
        addresses: vec!["first:7000".to_owned()],
    };
    let map = world.run(found(&[A, B], &[B])).await.unwrap();
    assert!(map.devices.contains_key(&B));
    // It has the group that was made with it.
    let remove = |device, losses| Remove {
        part: Part::Device(device),
        losses,
    };
    let part = Part::Device(B);
    let held = Refusal::Holds {
        part,
        groups: 1,
        shards: 0,
    };
    assert_eq!(world.run(remove(B, Losses::Accepted)).await, Err(held));
    let state = State::Out;
    world
        .advance(vec![Step::DeviceState { device: B, state }])
        .await;
    let only = Refusal::OnlyCopy {
        part,
        groups: 1,
        shards: 0,
    };
    assert_eq!(world.run(remove(B, Losses::Refused)).await, Err(only));
    world.run(remove(B, Losses::Accepted)).await.unwrap();
    assert_eq!(
        world.run(remove(B, Losses::Refused)).await,
        Err(Refusal::Unknown(part))
    );
    // The server is started with its directory again.
    let map = world.run(found(&[A, B], &[])).await.unwrap();
    assert!(map.devices.keys().eq([&A]));
    assert_eq!(
        world.run(remove(A, Losses::Accepted)).await,
        Err(Refusal::Last)
    );
}

#[tokio::test]
async fn devices_are_drained_but_never_all() {
    let world = World::new().await;
    let token = world.token(HOUR).await;
    world.join(&token, 1, B).await.unwrap();
    let drain = |device, is_draining| Drain {
        part: Part::Device(device),
        is_draining,
    };
    world.run(drain(A, true)).await.unwrap();
    assert!(world.map().await.is_draining(A));
    assert_eq!(world.run(drain(B, true)).await, Err(Refusal::Last));
    let part = Part::Node(SECOND);
    let node = Drain {
        part,
        is_draining: true,
    };
    assert_eq!(world.run(node).await, Err(Refusal::Last));
    let nothing = Err(Refusal::Unknown(Part::Device(C)));
    assert_eq!(world.run(drain(C, true)).await, nothing);
    world.run(drain(A, false)).await.unwrap();
    world.run(drain(B, true)).await.unwrap();
}

#[tokio::test]
async fn a_filling_member_is_no_copy() {
    let world = holding(&[B], &[]).await;
    world
        .advance(vec![Step::Add {
            index: 0,
            group: GroupId(5),
            device: A,
        }])
        .await;
    let node = SECOND;
    world
        .advance(vec![Step::NodeState {
            node,
            state: State::Out,
        }])
        .await;
    let losses = Losses::Refused;
    let part = Part::Node(node);
    let only = Refusal::OnlyCopy {
        part,
        groups: 1,
        shards: 0,
    };
    assert_eq!(world.run(Remove { part, losses }).await, Err(only));
}

#[tokio::test]
async fn a_removed_node_may_come_again_as_another() {
    let world = holding(&[], &[]).await;
    let losses = Losses::Refused;
    world
        .run(Remove {
            part: Part::Node(SECOND),
            losses,
        })
        .await
        .unwrap();
    let token = world.token(HOUR).await;
    assert_eq!(world.join(&token, 1, B).await.unwrap().node, NodeId(4));
}

#[tokio::test]
async fn damaged_rows_are_told_from_missing_ones() {
    for bytes in [&b""[..], b"\x02", b"\x01\x07", b"\x01\x05\x05"] {
        let read = row::decode::<row::ReignRow>(bytes);
        let is_damaged = |error| matches!(error, Execution::Refused(Refusal::Damaged(_)));
        assert_eq!(read.err().is_some_and(is_damaged), bytes != b"\x01\x07");
    }
}

/// What lies in the rows, byte by byte as docs/formats/control.md has it.
#[test]
fn rows_are_as_they_were() {
    let hex = |bytes: Bytes| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        hex(row::encode(&row::ReignRow { reign: Reign(300) })),
        "01ac02"
    );
    let pem = "x".to_owned();
    assert_eq!(hex(row::encode(&row::AuthorityRow { pem })), "010178");
    let public_key = vec![4, 5];
    assert_eq!(hex(row::encode(&tokens::KeyRow { public_key })), "01020405");
    let record = rpc::TokenRecord {
        id: 300,
        secret_hash: [0xab; 32],
        expires: Timestamp::from_ticks(5),
    };
    let used_by = Some(SECOND);
    let token = row::encode(&TokenState { record, used_by });
    assert_eq!(hex(token), format!("01ac02{}050102", "ab".repeat(32)));
    assert_eq!(&row::token(258)[..], b"Mt\0\0\0\0\0\0\x01\x02");
    assert_eq!(&row::node_key(NodeId(258))[..], b"Mk\0\0\x01\x02");
    assert_eq!(row::node_of(b"Mk\0\0\x01\x02"), Ok(NodeId(258)));
    assert!(row::node_of(b"Mk\0\x01").is_err());
}
