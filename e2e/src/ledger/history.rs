//! One path's writes, and which values they leave possible.

use std::time::Duration;

use super::Content;

/// A moment on the ledger's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u128);

impl Moment {
    /// Before everything.
    const BEGIN: Self = Self(0);
    /// After everything that was or will be entered.
    pub const END: Self = Self(u128::MAX);

    pub(super) fn after(elapsed: Duration) -> Self {
        Self(elapsed.as_nanos() + 1)
    }
}

/// What a path holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Value {
    #[default]
    Absent,
    /// A container.
    Container,
    /// An object; `note` is in metadata that a POST changes alone.
    Object { content: Content, note: u64 },
}

impl Value {
    /// The size of an object.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Object { content, .. } => Some(content.bytes),
            Self::Absent | Self::Container => None,
        }
    }
}

/// What a path held when it was last verified, and the writes since.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    before: Value,
    writes: Vec<Write>,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    value: Value,
    from: Moment,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// Not answered yet, or the answer was lost.
    Open,
    Done(Moment),
    Refused,
}

impl Write {
    /// Whether it was over before `moment`.
    fn is_over(&self, moment: Moment) -> bool {
        matches!(self.end, End::Done(end) if end < moment)
    }
}

impl History {
    pub(super) fn holding(before: Value) -> Self {
        Self {
            before,
            writes: Vec::new(),
        }
    }

    /// Gives the number under which the write is ended.
    pub(super) fn begin(&mut self, value: Value, from: Moment) -> usize {
        self.writes.push(Write {
            value,
            from,
            end: End::Open,
        });
        self.writes.len() - 1
    }

    /// Ends a write: done by then, or refused.
    pub(super) fn end(&mut self, number: usize, done: Option<Moment>) {
        self.writes[number].end = done.map_or(End::Refused, End::Done);
    }

    /// The writes that happened or may yet.
    fn effective(&self) -> impl Iterator<Item = Write> {
        let happens = |write: &Write| !matches!(write.end, End::Refused);
        self.writes.iter().copied().filter(happens)
    }

    /// Whether a read between these moments may have seen what `matches`: some write of it had begun,
    /// and none that was over before the read came wholly after that one.
    pub(super) fn allows(&self, matches: &dyn Fn(Value) -> bool, from: Moment, to: Moment) -> bool {
        let before = Write {
            value: self.before,
            from: Moment::BEGIN,
            end: End::Done(Moment::BEGIN),
        };
        let all = || [before].into_iter().chain(self.effective());
        let overtaken =
            |write: &Write| all().any(|later| later.is_over(from) && write.is_over(later.from));
        let begun = |write: &Write| matches(write.value) && write.from <= to;
        all().any(|write| begun(&write) && !overtaken(&write))
    }

    /// The one value that it holds, unless an answer was lost or writes overlapped.
    pub(super) fn certain(&self) -> Option<Value> {
        let mut value = self.before;
        let mut over = Moment::BEGIN;
        for write in self.effective() {
            match write.end {
                End::Done(end) if over < write.from => (value, over) = (write.value, end),
                _ => return None,
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(seed: u64) -> Value {
        Value::Object {
            content: Content { seed, bytes: 1 },
            note: 0,
        }
    }

    fn history(writes: &[(Value, u128, Option<u128>)]) -> History {
        let mut history = History::holding(object(0));
        for (value, from, to) in writes {
            let number = history.begin(*value, Moment(*from));
            if let Some(to) = to {
                history.end(number, Some(Moment(*to)));
            }
        }
        history
    }

    /// Which of absent and the objects 0 to 3 a read may see.
    #[track_caller]
    fn check(history: &History, from: u128, to: u128, allowed: &[Value]) {
        let values = [Value::Absent, object(0), object(1), object(2), object(3)];
        let seen = values
            .into_iter()
            .filter(|value| history.allows(&|have| have == *value, Moment(from), Moment(to)));
        assert_eq!(seen.collect::<Vec<_>>(), allowed);
    }

    const LATE: u128 = u128::MAX;

    #[test]
    fn nothing_written_leaves_what_was_verified() {
        check(&history(&[]), LATE, LATE, &[object(0)]);
    }

    #[test]
    fn the_last_of_writes_in_turn_is_there() {
        let writes = history(&[
            (object(1), 1, Some(2)),
            (Value::Absent, 3, Some(4)),
            (object(2), 5, Some(6)),
        ]);
        check(&writes, LATE, LATE, &[object(2)]);
        assert_eq!(writes.certain(), Some(object(2)));
    }

    #[test]
    fn of_overlapping_writes_any_may_be_last() {
        let writes = history(&[
            (object(1), 1, Some(5)),
            (object(2), 3, Some(9)),
            (object(3), 6, Some(8)),
        ]);
        check(&writes, LATE, LATE, &[object(2), object(3)]);
        assert_eq!(writes.certain(), None);
    }

    #[test]
    fn a_write_without_an_answer_may_happen_late_or_never() {
        let writes = history(&[(object(1), 1, None), (object(2), 3, Some(4))]);
        check(&writes, LATE, LATE, &[object(1), object(2)]);
        check(
            &history(&[(Value::Absent, 1, None)]),
            LATE,
            LATE,
            &[Value::Absent, object(0)],
        );
        assert_eq!(writes.certain(), None);
    }

    #[test]
    fn a_refused_write_leaves_no_trace() {
        let mut writes = history(&[(object(1), 1, Some(2))]);
        let refused = writes.begin(object(2), Moment(3));
        writes.end(refused, None);
        check(&writes, LATE, LATE, &[object(1)]);
        assert_eq!(writes.certain(), Some(object(1)));
    }

    #[test]
    fn a_read_sees_what_was_written_before_or_while_it_ran() {
        let writes = history(&[(object(1), 10, Some(20)), (object(2), 30, Some(40))]);
        check(&writes, 2, 5, &[object(0)]);
        check(&writes, 12, 15, &[object(0), object(1)]);
        check(&writes, 21, 25, &[object(1)]);
        check(&writes, 21, 35, &[object(1), object(2)]);
        check(&writes, 41, 45, &[object(2)]);
    }
}
