//! Single situations.

use std::collections::VecDeque;
use std::time::Duration;

use base::DeviceId;

use super::node::config;
use crate::message::{Appended, Body, Message};
use crate::raft::{Raft, Ready, Refused, Role, Start};
use crate::{Ballot, Entry, LogId, Membership, Payload, ReplicaId};

const NOW: Duration = Duration::from_secs(1000);

fn id(number: u64) -> ReplicaId {
    ReplicaId(number)
}

fn members(numbers: &[u64]) -> Vec<(ReplicaId, DeviceId)> {
    let member = |number: &u64| (id(*number), DeviceId((*number).into()));
    numbers.iter().map(member).collect()
}

fn replica(number: u64, voters: &[u64]) -> Raft<u64> {
    Raft::new(
        config(),
        Start {
            id: id(number),
            ballot: Ballot::default(),
            base: LogId { term: 0, index: 1 },
            membership: Membership::new(members(voters), []),
            entries: VecDeque::new(),
            seed: 7,
            now: NOW,
        },
    )
}

/// All writes end at once; messages are what comes of it.
fn written(raft: &mut Raft<u64>) -> Vec<Message<u64>> {
    let mut messages = Vec::new();
    loop {
        let ready: Ready<u64> = raft.ready();
        messages.extend(ready.messages);
        match ready.persist.last() {
            Some(last) => raft.persisted(NOW, last.seq),
            None => return messages,
        }
    }
}

fn message(from: u64, to: u64, term: u64, body: Body<u64>) -> Message<u64> {
    Message {
        from: id(from),
        to: id(to),
        term,
        body,
    }
}

/// Replica 1 of three, elected with the vote of 2.
fn leader() -> Raft<u64> {
    let mut raft = replica(1, &[1, 2, 3]);
    raft.tick(NOW + 2 * config().election);
    let granted = true;
    raft.receive(NOW, message(2, 1, 1, Body::CanvassReply { granted }));
    written(&mut raft);
    raft.receive(NOW, message(2, 1, 1, Body::VoteReply { granted }));
    written(&mut raft);
    assert_eq!((raft.role(), raft.leads()), (Role::Leader, None));
    answer(&mut raft, Appended::Matched(2), 0);
    raft.set_applied(2);
    assert_eq!(raft.leads(), Some(1));
    raft
}

fn answer(raft: &mut Raft<u64>, outcome: Appended, round: u64) {
    let body = Body::AppendReply { round, outcome };
    raft.receive(NOW, message(2, 1, 1, body));
}

#[test]
fn the_only_voter_leads_as_soon_as_its_vote_is_written() {
    let mut raft = replica(1, &[1]);
    assert_eq!(raft.role(), Role::Candidate);
    written(&mut raft);
    raft.set_applied(raft.commit());
    let term = raft.leads().expect("it leads");
    let proposed = raft.propose(term, 5).unwrap();
    assert!(raft.to_apply(usize::MAX).is_empty(), "not before the disk");
    written(&mut raft);
    let applied = raft.to_apply(usize::MAX);
    assert_eq!(applied.last().map(|entry| entry.id), Some(proposed));
    assert_eq!(raft.deadline(), None, "it has nobody to talk to");
}

/// Delivers messages and ends writes until nobody has anything to say.
fn settle(group: &mut [Raft<u64>]) {
    let mut waiting: VecDeque<_> = group.iter_mut().flat_map(written).collect();
    while let Some(message) = waiting.pop_front() {
        let to = group.iter_mut().find(|one| one.id() == message.to);
        let to = to.expect("it is one of them");
        to.receive(NOW, message);
        to.pump(NOW);
        waiting.extend(written(to));
    }
}

/// What a small write waits for: a message to a majority and its answer, and the slower of two writes.
#[test]
fn a_proposal_costs_one_round_and_one_write_of_each() {
    let mut group = [1, 2, 3].map(|number| replica(number, &[1, 2, 3]));
    group[0].tick(NOW + 2 * config().election);
    settle(&mut group);
    let [leader, others @ ..] = &mut group;
    leader.set_applied(leader.commit());
    assert_eq!(leader.leads(), Some(1));

    let proposed = leader.propose(1, 5).unwrap();
    leader.pump(NOW);
    let ready = leader.ready();
    assert_eq!((ready.persist.len(), ready.messages.len()), (1, 2));
    leader.persisted(NOW, ready.persist[0].seq);
    assert!(leader.commit() < proposed.index, "it alone is no majority");

    let mut answers = Vec::new();
    for (other, message) in others.iter_mut().zip(ready.messages) {
        assert_eq!(other.id(), message.to);
        other.receive(NOW, message);
        let ready = other.ready();
        assert_eq!((ready.persist.len(), ready.messages.len()), (1, 0));
        other.persisted(NOW, ready.persist[0].seq);
        let ready = other.ready();
        assert_eq!((ready.persist.len(), ready.messages.len()), (0, 1));
        answers.extend(ready.messages);
    }
    leader.receive(NOW, answers.remove(0));
    assert_eq!(leader.commit(), proposed.index);
    let ready = leader.ready();
    assert_eq!((ready.persist.len(), ready.messages.len()), (0, 0));
}

#[test]
fn a_proposal_is_sent_while_it_is_written() {
    let mut raft = leader();
    raft.propose(1, 5).unwrap();
    raft.propose(1, 6).unwrap();
    raft.pump(NOW);
    let ready = raft.ready();
    let to_second = ready.messages.iter().filter(|message| message.to == id(2));
    let entries: Vec<_> = to_second
        .map(|message| match &message.body {
            Body::Append { entries, .. } => entries.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(entries, [2], "both in one message, before the disk");
    answer(&mut raft, Appended::Matched(4), 0);
    assert_eq!(raft.commit(), 2, "one copy that is durable is no majority");
    raft.persisted(NOW, ready.persist.last().unwrap().seq);
    assert_eq!(raft.commit(), 4);
}

/// Figure 8 of the thesis: copies of what an earlier leader left decide nothing by themselves.
#[test]
fn entries_of_earlier_terms_are_decided_by_one_of_this_term() {
    let mut raft = leader();
    raft.propose(1, 5).unwrap();
    written(&mut raft);
    raft.tick(NOW + 2 * config().election);
    raft.tick(NOW + 5 * config().election);
    let granted = true;
    raft.receive(NOW, message(2, 1, 2, Body::CanvassReply { granted }));
    written(&mut raft);
    raft.receive(NOW, message(2, 1, 2, Body::VoteReply { granted }));
    written(&mut raft);
    assert_eq!(
        (raft.role(), raft.last()),
        (Role::Leader, LogId { term: 2, index: 4 })
    );
    for (matched, decided) in [(3, 2), (4, 4)] {
        let body = Body::AppendReply {
            round: 0,
            outcome: Appended::Matched(matched),
        };
        raft.receive(NOW, message(2, 1, 2, body));
        assert_eq!(raft.commit(), decided);
    }
}

#[test]
fn reads_share_a_round() {
    let mut raft = leader();
    written(&mut raft);
    raft.read(NOW, 1);
    assert_eq!(written(&mut raft).len(), 2, "both are asked");
    raft.read(NOW, 2);
    raft.read(NOW, 3);
    assert!(
        written(&mut raft).is_empty(),
        "they wait for the next round"
    );
    answer(&mut raft, Appended::Alive, 1);
    let ready = raft.ready();
    assert_eq!(ready.reads, [(1, Some(2))]);
    assert_eq!(ready.messages.len(), 2);
    answer(&mut raft, Appended::Alive, 2);
    assert_eq!(raft.ready().reads, [(2, Some(2)), (3, Some(2))]);
}

#[test]
fn who_leads_on_its_way_out_asks_the_one_who_stays() {
    let mut raft = replica(1, &[1]);
    written(&mut raft);
    raft.set_applied(raft.commit());
    let both = Membership::new(members(&[1, 2]), []);
    raft.change(NOW, &both).unwrap();
    written(&mut raft);
    let matched = |raft: &mut Raft<u64>, index, round| {
        let outcome = Appended::Matched(index);
        let body = Body::AppendReply { round, outcome };
        raft.receive(NOW, message(2, 1, 1, body));
        written(raft);
    };
    matched(&mut raft, 3, 0);
    matched(&mut raft, 4, 0);
    assert!(raft.is_settled());
    raft.change(NOW, &Membership::new(members(&[2]), []))
        .unwrap();
    written(&mut raft);
    matched(&mut raft, 5, 0);
    assert_eq!(raft.membership().voters().len(), 1);
    assert!(raft.role() == Role::Leader && !raft.is_only_voter());
    raft.read(NOW, 1);
    let ready = raft.ready();
    assert!(ready.reads.is_empty() && ready.messages.iter().any(|one| one.to == id(2)));
}

#[test]
fn who_no_longer_leads_answers_no_read() {
    let mut raft = leader();
    raft.read(NOW, 1);
    raft.ready();
    raft.tick(NOW + 2 * config().election);
    assert_eq!(raft.role(), Role::Follower);
    assert_eq!(raft.ready().reads, [(1, None)]);
    assert_eq!(raft.propose(1, 5), Err(Refused::NotLeader));
}

#[test]
fn nobody_votes_against_a_leader_that_is_heard() {
    let mut raft = replica(2, &[1, 2, 3]);
    let append = Body::Append {
        prev: LogId { term: 0, index: 1 },
        entries: Vec::new(),
        commit: 1,
        keep: 0,
        round: 0,
    };
    raft.receive(NOW, message(1, 2, 1, append));
    written(&mut raft);
    let last = LogId { term: 9, index: 9 };
    for is_transfer in [false, true] {
        let vote = Body::Vote { last, is_transfer };
        raft.receive(NOW, message(3, 2, 2, vote));
        let granted = written(&mut raft)
            .iter()
            .any(|message| message.body == Body::VoteReply { granted: true });
        assert_eq!(granted, is_transfer, "unless that leader wants it");
    }
}

#[test]
fn leadership_is_handed_to_who_has_everything() {
    let mut raft = leader();
    raft.propose(1, 5).unwrap();
    written(&mut raft);
    assert_eq!(raft.transfer(NOW, id(9)), Err(Refused::Impossible));
    raft.transfer(NOW, id(2)).unwrap();
    assert_eq!(raft.propose(1, 6), Err(Refused::Busy));
    assert!(written(&mut raft).is_empty(), "not yet");
    answer(&mut raft, Appended::Matched(3), 0);
    let told = written(&mut raft);
    assert!(
        told.iter()
            .any(|message| message.body == Body::TakeOver && message.to == id(2))
    );
}

#[test]
fn leadership_is_not_handed_to_who_has_said_nothing() {
    let mut raft = leader();
    assert_eq!(raft.transfer(NOW, id(3)), Err(Refused::Busy));
    assert!(raft.propose(1, 5).is_ok(), "nothing is held up for it");
    // Who has said something is not waited for when it is gone.
    let later = NOW + config().election;
    assert_eq!(raft.transfer(later, id(2)), Err(Refused::Busy));
}

#[test]
fn a_leader_that_is_asked_all_the_time_notices_how_time_goes_by() {
    let mut raft = leader();
    raft.propose(1, 5).unwrap();
    written(&mut raft);
    raft.transfer(NOW, id(2)).unwrap();
    let (end, mut token) = (NOW + 2 * config().election, 0);
    let mut now = NOW;
    while now < end {
        now += Duration::from_millis(10);
        token += 1;
        raft.read(now, token);
        let round = token;
        let outcome = Appended::Alive;
        let body = Body::AppendReply { round, outcome };
        raft.receive(now, message(2, 1, 1, body));
        written(&mut raft);
        if raft.deadline().is_some_and(|at| at <= now) {
            raft.tick(now);
        }
    }
    assert_eq!(raft.role(), Role::Leader);
    assert!(raft.propose(1, 6).is_ok(), "the transfer was given up");
}

#[test]
fn of_two_who_want_to_lead_at_once_one_gives_way() {
    let after = NOW + 2 * config().election;
    let last = LogId { term: 0, index: 1 };
    let asked = |by: u64, asks: u64| {
        let mut raft = replica(by, &[1, 2, 3]);
        raft.tick(after);
        assert_eq!(raft.role(), Role::Candidate);
        written(&mut raft);
        let canvass = message(asks, by, 1, Body::Canvass { last });
        raft.receive(after, canvass);
        written(&mut raft)
    };
    let yes = |granted| Body::CanvassReply { granted };
    assert_eq!(asked(1, 2), [message(1, 2, 1, yes(true))]);
    assert_eq!(asked(2, 1), [message(2, 1, 0, yes(false))]);
}

#[test]
fn who_was_not_answered_asks_again_soon() {
    let mut raft = replica(1, &[1, 2, 3]);
    let after = NOW + 2 * config().election;
    raft.tick(after);
    assert_eq!(written(&mut raft).len(), 2);
    let again = raft.deadline().unwrap();
    assert!(again <= after + 2 * config().heartbeat);
    raft.tick(again);
    assert_eq!(written(&mut raft).len(), 2);
}

#[test]
fn what_no_replica_can_have_sent_changes_nothing() {
    let mut raft = replica(2, &[1, 2, 3]);
    let entry = |term, index| Entry {
        id: LogId { term, index },
        payload: Payload::Data(1),
    };
    for entries in [
        vec![entry(1, 5)],
        vec![entry(2, 2)],
        vec![entry(1, 2), entry(0, 3)],
    ] {
        let append = Body::Append {
            prev: LogId { term: 0, index: 1 },
            entries,
            commit: 9,
            keep: 0,
            round: 0,
        };
        raft.receive(NOW, message(1, 2, 1, append));
        assert!(raft.ready().is_empty());
        assert_eq!((raft.commit(), raft.last().index, raft.term()), (1, 1, 0));
    }
}

#[test]
fn what_contradicts_itself_ends_nobody() {
    let append = |prev, entries| Body::Append {
        prev,
        entries,
        commit: 9,
        keep: 0,
        round: 0,
    };
    let entry = |term, index| Entry {
        id: LogId { term, index },
        payload: Payload::Data(1),
    };
    // Another leader of the same term.
    let mut raft = leader();
    let last = raft.last();
    let body = append(last, vec![entry(1, last.index + 1)]);
    raft.receive(NOW, message(2, 1, 1, body));
    assert_eq!((raft.role(), raft.last()), (Role::Leader, last));
    // An entry of an earlier term behind one that is decided.
    let mut raft = replica(2, &[1, 2, 3]);
    let start = LogId { term: 0, index: 1 };
    let body = append(start, vec![entry(5, 2)]);
    raft.receive(NOW, message(1, 2, 5, body));
    written(&mut raft);
    assert_eq!(raft.commit(), 2);
    let body = append(start, vec![entry(3, 2), entry(3, 3)]);
    raft.receive(NOW, message(1, 2, 5, body));
    assert_eq!((raft.commit(), raft.last().index), (2, 2));
}

#[test]
fn entries_are_kept_for_the_slow_within_bounds() {
    let mut raft = leader();
    for value in 0..100 {
        raft.propose(1, value).unwrap();
    }
    raft.pump(NOW);
    written(&mut raft);
    answer(&mut raft, Appended::Matched(102), 0);
    raft.set_applied(102);
    assert_eq!(raft.compact(102, usize::MAX), 1, "3 has nothing yet");
    let kept_from = raft.compact(102, 1000);
    assert!((90..102).contains(&kept_from), "{kept_from}");
}

/// Replica 2, which has entry 2 of the leader 1 and knows that it is decided.
fn follower() -> Raft<u64> {
    let mut raft = replica(2, &[1, 2, 3]);
    let append = Body::Append {
        prev: LogId { term: 0, index: 1 },
        entries: vec![Entry {
            id: LogId { term: 1, index: 2 },
            payload: Payload::Data(1),
        }],
        commit: 2,
        keep: 0,
        round: 0,
    };
    raft.receive(NOW, message(1, 2, 1, append));
    written(&mut raft);
    raft
}

/// The number of the question that it asks its leader, if it asks one.
fn question(raft: &mut Raft<u64>) -> Option<u64> {
    raft.pump(NOW);
    let messages = written(raft);
    messages.iter().find_map(|message| match message.body {
        Body::ReadIndex { number } => Some(number),
        _ => None,
    })
}

#[test]
fn two_of_three_can_tell_what_a_read_must_see() {
    let mut raft = leader();
    let number = 9;
    raft.receive(NOW, message(2, 1, 1, Body::ReadIndex { number }));
    let index = raft.commit();
    let reply = message(1, 2, 1, Body::ReadIndexReply { number, index });
    assert_eq!(written(&mut raft), [reply], "nobody else is asked");
}

#[test]
fn a_member_without_a_say_proves_nothing() {
    let mut raft = leader();
    let number = 9;
    raft.receive(NOW, message(8, 1, 1, Body::ReadIndex { number }));
    let asked = written(&mut raft);
    let is_question =
        |message: &Message<u64>| matches!(message.body, Body::Append { round: 1, .. });
    assert!(asked.iter().all(is_question), "{asked:?}");
    answer(&mut raft, Appended::Matched(2), 1);
    let index = raft.commit();
    let reply = message(1, 8, 1, Body::ReadIndexReply { number, index });
    assert!(written(&mut raft).contains(&reply));
}

#[test]
fn those_who_read_meanwhile_share_the_next_question() {
    let mut raft = follower();
    raft.read(NOW, 1);
    let first = question(&mut raft).expect("it asks");
    raft.read(NOW, 2);
    raft.read(NOW, 3);
    assert_eq!(question(&mut raft), None);
    let reply = |number, index| message(1, 2, 1, Body::ReadIndexReply { number, index });
    raft.receive(NOW, reply(first, 2));
    assert_eq!(raft.ready().reads, [(1, Some(2))]);
    let second = question(&mut raft).expect("it asks again");
    // An answer to another question is none.
    raft.receive(NOW, reply(first, 2));
    assert!(raft.ready().reads.is_empty());
    raft.receive(NOW, reply(second, 7));
    assert_eq!(raft.ready().reads, [(2, Some(7)), (3, Some(7))]);
    assert_eq!(raft.commit(), 2, "what is not here is not known");
}

#[test]
fn a_lost_question_is_asked_again() {
    let mut raft = follower();
    raft.read(NOW, 1);
    let number = question(&mut raft);
    let heartbeat = Body::Append {
        prev: LogId { term: 1, index: 2 },
        entries: Vec::new(),
        commit: 2,
        keep: 0,
        round: 0,
    };
    raft.receive(NOW, message(1, 2, 1, heartbeat.clone()));
    assert_eq!(question(&mut raft), None, "the answer may still come");
    let later = NOW + config().heartbeat;
    raft.receive(later, message(1, 2, 1, heartbeat));
    assert_eq!(question(&mut raft), number);
}

#[test]
fn who_reads_is_told_when_the_leader_is_gone() {
    let mut raft = follower();
    raft.read(NOW, 1);
    raft.tick(NOW + 2 * config().election);
    assert_eq!(raft.ready().reads, [(1, None)]);
    raft.read(NOW, 2);
    assert_eq!(raft.ready().reads, [(2, None)], "nobody leads");
}
