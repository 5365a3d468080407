//! Group commit: one sync serves all who wait for it.
//!
//! There is no thread of its own for it. Who comes while nobody is syncing syncs; who comes
//! while somebody is leaves what he has to the next round. So a lone writer waits for one sync and
//! no thread switch, and many writers share each.

use parking_lot::Mutex;

pub(crate) struct Group<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: Vec<T>,
    /// Whether somebody is syncing, who will look at `waiting` again when he is done.
    led: bool,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: Vec::new(),
                led: false,
            }),
        }
    }
}

impl<T> Group<T> {
    /// Hands `item` to the next round. If nobody is leading, the caller does: calls `round` with
    /// all who wait, until nobody does. `round` must not panic.
    pub(crate) fn join(&self, item: T, mut round: impl FnMut(Vec<T>)) {
        let mut state = self.state.lock();
        state.waiting.push(item);
        if state.led {
            return;
        }
        state.led = true;
        while !state.waiting.is_empty() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            round(waiting);
            state = self.state.lock();
        }
        state.led = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_during_a_round_is_served_by_the_next() {
        let group = Group::default();
        let mut rounds = Vec::new();
        group.join(1, |round| {
            if round == [1] {
                // Two more come while the first round runs; neither leads.
                group.join(2, |_| panic!("somebody leads already"));
                group.join(3, |_| panic!("somebody leads already"));
            }
            rounds.push(round);
        });
        assert_eq!(rounds, [vec![1], vec![2, 3]]);
        group.join(4, |round| rounds.push(round));
        assert_eq!(rounds.len(), 3);
    }
}
