//! Work for the store's own threads.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A queue that threads wait at. Its callers bound it: each item carries a permit.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State {
            items: VecDeque::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Appends an item; drops it if the queue is closed.
    pub(crate) fn push(&self, item: T) {
        let mut state = self.state.lock();
        if !state.closed {
            state.items.push_back(item);
            self.changed.notify_one();
        }
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Takes nothing more; what is queued is still handed out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_queue_hands_out_what_it_has() {
        let queue = Queue::default();
        queue.push(1);
        queue.close();
        queue.push(2);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
    }
}
