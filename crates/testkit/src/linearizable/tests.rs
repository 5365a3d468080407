//! The check against histories that are known to be good or bad, against a real register, and against
//! the definition itself.

use super::*;
use crate::Random;

const PUT: fn(Value) -> Action = |value| Action::Put {
    value,
    condition: Condition::Always,
};
const CREATE: fn(Value) -> Action = |value| Action::Put {
    value,
    condition: Condition::Absent,
};

fn swap(old: Value, new: Value) -> Action {
    Action::Put {
        value: new,
        condition: Condition::Holds(old),
    }
}

/// Answered at `at`.
fn answered(from: Moment, at: Moment, action: Action, outcome: Outcome) -> Operation {
    Operation {
        from,
        action,
        answer: Some(Answer { at, outcome }),
    }
}

fn done(from: Moment, at: Moment, action: Action) -> Operation {
    answered(from, at, action, Outcome::Done)
}

fn refused(from: Moment, at: Moment, action: Action) -> Operation {
    answered(from, at, action, Outcome::Refused)
}

fn saw(from: Moment, at: Moment, value: impl Into<Option<Value>>) -> Operation {
    answered(from, at, Action::Get, Outcome::Saw(value.into()))
}

fn unanswered(from: Moment, action: Action) -> Operation {
    Operation {
        from,
        action,
        answer: None,
    }
}

#[track_caller]
fn good(history: &[Operation]) {
    assert_eq!(check(history), Ok(()));
}

#[track_caller]
fn bad(history: &[Operation]) {
    let error = check(history).expect_err("nothing explains it");
    assert!(matches!(error, Error::Unexplained { .. }), "{error}");
}

#[test]
fn one_after_the_other_each_sees_the_last() {
    good(&[]);
    good(&[
        saw(1, 2, None),
        done(3, 4, PUT(1)),
        saw(5, 6, 1),
        done(7, 8, Action::Delete),
        saw(9, 10, None),
        refused(11, 12, Action::Delete),
    ]);
}

#[test]
fn a_lost_write_is_bad() {
    bad(&[done(1, 2, PUT(1)), saw(3, 4, None)]);
    bad(&[done(1, 2, PUT(1)), done(3, 4, PUT(2)), saw(5, 6, 1)]);
}

#[test]
fn a_delete_that_comes_undone_is_bad() {
    bad(&[done(1, 2, PUT(1)), done(3, 4, Action::Delete), saw(5, 6, 1)]);
}

#[test]
fn a_value_that_nobody_wrote_is_bad() {
    bad(&[done(1, 2, PUT(1)), saw(3, 4, 2)]);
}

#[test]
fn while_a_write_runs_reads_may_see_either_but_not_go_back() {
    let write = done(2, 9, PUT(1));
    good(&[write, saw(3, 4, None), saw(5, 6, 1)]);
    good(&[write, saw(3, 6, 1), saw(4, 7, None)]);
    bad(&[write, saw(3, 4, 1), saw(5, 6, None)]);
}

#[test]
fn two_readers_agree_on_the_order_of_two_writes() {
    let writes = [done(1, 10, PUT(1)), done(1, 10, PUT(2))];
    let reads = |values: [Value; 4]| {
        let [a, b, c, d] = values;
        [
            saw(11, 12, a),
            saw(13, 14, b),
            saw(15, 16, c),
            saw(17, 18, d),
        ]
    };
    good(&[&writes[..], &reads([1, 1, 1, 1])].concat());
    bad(&[&writes[..], &reads([1, 2, 2, 2])].concat());
    bad(&[&writes[..], &[saw(2, 3, 1), saw(4, 5, 2), saw(6, 7, 1)]].concat());
}

#[test]
fn of_two_that_create_one_wins() {
    good(&[
        done(1, 5, CREATE(1)),
        refused(2, 6, CREATE(2)),
        saw(7, 8, 1),
    ]);
    bad(&[done(1, 5, CREATE(1)), done(2, 6, CREATE(2))]);
    bad(&[refused(1, 5, CREATE(1)), refused(2, 6, CREATE(2))]);
}

#[test]
fn of_two_that_swap_the_same_value_one_wins() {
    let before = done(1, 2, PUT(1));
    good(&[before, done(3, 6, swap(1, 2)), refused(4, 7, swap(1, 3))]);
    bad(&[before, done(3, 6, swap(1, 2)), done(4, 7, swap(1, 3))]);
    bad(&[before, refused(3, 6, swap(1, 2))]);
}

#[test]
fn without_an_answer_it_happens_later_or_never_but_not_before_it_was_asked_for() {
    good(&[unanswered(1, PUT(1)), saw(2, 3, None), saw(90, 91, 1)]);
    good(&[unanswered(1, PUT(1)), saw(2, 3, None), saw(90, 91, None)]);
    bad(&[saw(2, 3, 1), unanswered(4, PUT(1))]);
    bad(&[unanswered(1, PUT(1)), saw(2, 3, 1), saw(4, 5, None)]);
    // It happens once.
    bad(&[
        unanswered(1, PUT(1)),
        saw(2, 3, 1),
        done(4, 5, PUT(2)),
        saw(6, 7, 1),
    ]);
}

#[test]
fn a_condition_is_asked_when_the_write_takes_effect() {
    good(&[
        done(1, 2, PUT(1)),
        unanswered(3, CREATE(2)),
        done(4, 5, Action::Delete),
        saw(6, 7, 2),
    ]);
    bad(&[done(1, 2, PUT(1)), unanswered(3, CREATE(2)), saw(6, 7, 2)]);
}

#[test]
fn the_error_tells_where_it_ends() {
    let history = [done(1, 2, PUT(1)), saw(3, 4, 1), saw(5, 6, 7), saw(8, 9, 1)];
    let expected = Error::Unexplained {
        explained: vec![0, 1],
        stuck: 2,
    };
    assert_eq!(check(&history), Err(expected));
}

#[test]
fn more_than_can_be_searched_is_no_success() {
    // Any of these may have happened in any order, and the last read fits none.
    let mut history: Vec<_> = (0..30).map(|value| unanswered(value, PUT(value))).collect();
    history.push(saw(100, 101, 1000));
    assert_eq!(check(&history), Err(Error::TooHard));
}

/// What `clients` see of a real register: each asks, waits, takes effect, waits, and is answered or not.
fn of_a_register(random: &mut Random, clients: u64, operations: u64) -> Vec<Operation> {
    let mut planned: Vec<(Moment, Operation)> = Vec::new();
    let mut value = 0;
    for client in 0..clients {
        let mut now = random.below(20);
        for _ in 0..operations / clients {
            value += 1;
            let (effect, at) = (now + random.below(30), now + 30 + random.below(30));
            let lost = random.chance(1, 50);
            let action = action(random, value, client);
            // Its effect may come long after the client has given up.
            let late = if lost { random.below(3000) } else { 0 };
            let answer = (!lost).then_some(Answer {
                at,
                outcome: Outcome::Done,
            });
            let operation = Operation {
                from: now,
                action,
                answer,
            };
            planned.push((effect + late, operation));
            now = at + random.below(20);
        }
    }
    planned.sort_by_key(|(effect, _)| *effect);
    let mut held = None;
    for (_, operation) in &mut planned {
        // A request that was lost on its way never happens.
        if operation.answer.is_none() && random.chance(1, 3) {
            continue;
        }
        let (after, outcome) = operation.action.perform(held);
        held = after;
        if let Some(answer) = &mut operation.answer {
            answer.outcome = outcome;
        }
    }
    planned
        .into_iter()
        .map(|(_, operation)| operation)
        .collect()
}

fn action(random: &mut Random, value: Value, client: u64) -> Action {
    match random.below(10) {
        0..3 => PUT(value),
        3 => CREATE(value),
        // Often one that is held.
        4..6 => swap(value.saturating_sub(1 + client), value),
        6 => Action::Delete,
        _ => Action::Get,
    }
}

#[test]
fn what_a_real_register_gives_is_always_good() {
    for seed in 0..300 {
        let history = of_a_register(&mut Random::new(seed), 8, 160);
        assert_eq!(check(&history), Ok(()), "seed {seed}: {history:?}");
    }
}

#[test]
fn what_a_forgetful_register_gives_is_always_bad() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut history = of_a_register(&mut random, 8, 160);
        let last = history.iter().filter_map(|operation| operation.answer);
        let end = last
            .map(|answer| answer.at)
            .max()
            .expect("some are answered")
            + 4000;
        history.push(done(end, end + 1, PUT(1_000_000)));
        let forgotten = match random.below(3) {
            0 => saw(end + 2, end + 3, None),
            1 => refused(end + 2, end + 3, Action::Delete),
            _ => done(end + 2, end + 3, CREATE(1_000_001)),
        };
        // A delete without an answer may come in between, and explain that nothing is there.
        history
            .retain(|operation| operation.answer.is_some() || operation.action != Action::Delete);
        history.push(forgotten);
        bad(&history);
    }
}

/// The definition: some subset of what was not answered, with all that was, in some order.
fn by_definition(history: &[Operation]) -> bool {
    fn explain(history: &[Operation], left: &mut Vec<usize>, held: Option<Value>) -> bool {
        if left.iter().all(|index| history[*index].answer.is_none()) {
            return true;
        }
        let answers = left.iter().filter_map(|index| history[*index].answer);
        let first = answers.map(|answer| answer.at).min().expect("there is one");
        (0..left.len()).any(|at| {
            let index = left[at];
            let operation = &history[index];
            if operation.from > first {
                return false;
            }
            let Some(after) = operation.step(held) else {
                return false;
            };
            left.remove(at);
            let explained = explain(history, left, after);
            left.insert(at, index);
            explained
        })
    }
    explain(history, &mut (0..history.len()).collect(), None)
}

#[test]
fn on_small_histories_the_search_is_the_definition() {
    let mut verdicts = [0; 2];
    for seed in 0..30_000 {
        let mut random = Random::new(seed);
        let mut history = of_a_register(&mut random, 3, 6);
        // What a broken one might answer instead.
        for _ in 0..random.below(3) {
            let count = history.len() as u64;
            let index = usize::try_from(random.below(count)).expect("an index");
            let operation = &mut history[index];
            let other = match operation.action {
                Action::Get => Outcome::Saw(Some(random.below(7)).filter(|value| *value > 0)),
                _ if random.chance(1, 2) => Outcome::Done,
                _ => Outcome::Refused,
            };
            if let Some(answer) = &mut operation.answer {
                answer.outcome = other;
            }
        }
        let expected = by_definition(&history);
        let found = check(&history);
        assert_eq!(
            found.is_ok(),
            expected,
            "seed {seed}: {found:?} of {history:?}"
        );
        verdicts[usize::from(expected)] += 1;
    }
    // The test would prove little if almost all were of one kind.
    assert!(verdicts.iter().all(|count| *count > 3000), "{verdicts:?}");
}
