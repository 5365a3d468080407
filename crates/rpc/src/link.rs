//! The caller's end of a connection: many calls at once, told apart by their ids.
//!
//! **Invariant:** a slot is taken from when a call is queued until its answer is here, also if nobody
//! waits for it any more. So both sides count the same calls, and the callee may treat one too many
//! as an error instead of queueing it. A call that was not written yet gives its slot back at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::metrics::Gauge;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::error::{CallError, Fault};
use crate::frame::{BadFrame, Header, Hello, Kind, NotTaken};
use crate::metrics::OfLane;
use crate::wire::{self, Batch, FrameReader, Pulse};

pub(crate) struct Link {
    /// Calls that may still be made.
    slots: Semaphore,
    /// Callers that wait for one.
    waiting: Gauge,
    in_flight_max: usize,
    /// What the callee takes.
    call_bytes_max: usize,
    /// What we take.
    answer_bytes_max: usize,
    idle: Duration,
    pulse: Arc<Pulse>,
    metrics: Arc<OfLane>,
    state: Mutex<State>,
}

struct State {
    /// Made and not yet answered.
    calls: HashMap<u64, Made>,
    /// Of them, those that are not written yet; in the order of their ids.
    queue: VecDeque<Queued>,
    /// Calls to say a [`Kind::Cancel`] for.
    cancels: Vec<u64>,
    next_id: u64,
    last_call: Instant,
    /// At least one call.
    answered: bool,
    closed: Option<Fault>,
}

struct Made {
    sent: bool,
    /// Nobody waits any more if there is none.
    answer: Option<oneshot::Sender<Result<Bytes, CallError>>>,
}

struct Queued {
    id: u64,
    call: Outgoing,
}

/// A call as its caller wants it.
pub(crate) struct Outgoing {
    pub(crate) service: u16,
    pub(crate) body: Vec<Bytes>,
    pub(crate) deadline: Instant,
}

impl Link {
    /// `theirs` is the hello of the callee, `ours` that of this side.
    pub(crate) fn new(
        ours: &Hello,
        theirs: &Hello,
        pulse: Arc<Pulse>,
        idle: Duration,
        metrics: Arc<OfLane>,
    ) -> Self {
        let in_flight_max = ours.in_flight_max.min(theirs.in_flight_max);
        let in_flight_max = usize::try_from(in_flight_max).expect("32 bits fit");
        let bytes = |bytes: u32| usize::try_from(bytes).expect("32 bits fit");
        Self {
            slots: Semaphore::new(in_flight_max),
            waiting: Gauge::new(),
            in_flight_max,
            call_bytes_max: bytes(ours.body_bytes_max.min(theirs.body_bytes_max)),
            answer_bytes_max: bytes(ours.body_bytes_max),
            idle,
            pulse,
            metrics,
            state: Mutex::new(State {
                calls: HashMap::new(),
                queue: VecDeque::new(),
                cancels: Vec::new(),
                next_id: 1,
                last_call: Instant::now(),
                answered: false,
                closed: None,
            }),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// Whether it broke before it was of any use.
    pub(crate) fn is_vain(&self) -> bool {
        let state = self.state.lock();
        let broken = state
            .closed
            .as_ref()
            .is_some_and(|fault| *fault != Fault::Closed);
        broken && !state.answered
    }

    /// Calls in flight, and those that wait to be.
    pub(crate) fn load(&self) -> usize {
        let in_flight = self
            .in_flight_max
            .saturating_sub(self.slots.available_permits());
        in_flight + usize::try_from(self.waiting.get()).unwrap_or(0)
    }

    /// Waits for room for one more call; `None` when the link is closed.
    pub(crate) async fn place(self: Arc<Self>) -> Option<Place> {
        let waiting = self.waiting.enter();
        let slot = self.slots.acquire().await.ok()?;
        slot.forget();
        drop(waiting);
        Some(Place {
            link: self,
            used: false,
        })
    }

    fn enqueue(&self, mut place: Place, call: Outgoing) -> Result<Waiting, CallError> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(fault) = &state.closed {
            return Err(CallError::NotSent(fault.clone()));
        }
        let id = state.next_id;
        state.next_id += 1;
        state.last_call = Instant::now();
        let made = Made {
            sent: false,
            answer: Some(sender),
        };
        state.calls.insert(id, made);
        state.queue.push_back(Queued { id, call });
        drop(state);
        self.metrics.in_flight.add(1);
        self.pulse.wake.notify_one();
        place.used = true;
        Ok(Waiting { place, id, answer })
    }

    /// Nobody waits for the call any more. Returns whether the callee may have seen it.
    fn abandon(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let Some(call) = state.calls.get_mut(&id) else {
            return true;
        };
        if call.sent {
            // Once is enough.
            if call.answer.take().is_some() {
                state.cancels.push(id);
                self.pulse.wake.notify_one();
            }
            return true;
        }
        state.calls.remove(&id);
        if let Ok(at) = state.queue.binary_search_by_key(&id, |queued| queued.id) {
            state.queue.remove(at);
        }
        self.free_slot();
        false
    }

    fn free_slot(&self) {
        self.slots.add_permits(1);
        self.metrics.in_flight.sub(1);
    }

    /// Moves the connection until it breaks or is closed.
    pub(crate) async fn run<R, W>(&self, mut reader: FrameReader<R>, mut writer: W) -> Fault
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let fault = tokio::select! {
            Err(fault) = self.read(&mut reader) => fault,
            Err(fault) = wire::write(&mut writer, &self.pulse, |batch| self.fill(batch)) => fault,
            fault = self.pulse.watch(|| self.tick()) => fault,
        };
        self.close(fault.clone());
        fault
    }

    /// Takes what waits to be written.
    fn fill(&self, batch: &mut Batch) -> Result<(), Fault> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State {
            calls,
            queue,
            cancels,
            closed,
            ..
        } = &mut *state;
        if let Some(fault) = closed {
            return Err(fault.clone());
        }
        for id in cancels.drain(..) {
            batch.push(Header::new(Kind::Cancel, id, 0), vec![]);
        }
        while !batch.is_full()
            && let Some(Queued { id, call }) = queue.pop_front()
        {
            let remaining = call.deadline.saturating_duration_since(now);
            if remaining.is_zero() {
                // Its caller is about to notice; to the callee it would only be work for nothing.
                continue;
            }
            let made = calls.get_mut(&id).expect("queued calls are made");
            made.sent = true;
            let bytes = wire::length(&call.body);
            self.metrics.sent_bytes.add(bytes as u64);
            let header = Header {
                tag: call.service,
                remaining_ms: millis(remaining),
                ..Header::new(Kind::Call, id, wire::fit(bytes))
            };
            batch.push(header, call.body);
        }
        Ok(())
    }

    async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
    ) -> Result<std::convert::Infallible, Fault> {
        loop {
            let header = reader.header().await?;
            let bytes = header.body_within(self.answer_bytes_max)?;
            let answer = match header.kind {
                Kind::Alive => {
                    reader.body(bytes).await?;
                    continue;
                }
                Kind::Answer => Ok(reader.body(bytes).await?),
                Kind::Refused => Err(CallError::Refused(reader.body(bytes).await?)),
                Kind::NotTaken => {
                    reader.body(bytes).await?;
                    let reason = NotTaken::from_tag(header.tag)?;
                    Err(CallError::NotSent(reason.into()))
                }
                Kind::Unfinished => {
                    reader.body(bytes).await?;
                    let late = header.tag != 0;
                    Err(CallError::Unknown(match late {
                        true => Fault::Deadline,
                        false => Fault::Unfinished,
                    }))
                }
                Kind::Hello | Kind::Call | Kind::Cancel => {
                    return Err(BadFrame::Unexpected(header.kind).into());
                }
            };
            self.metrics.received_bytes.add(bytes as u64);
            self.answered(header.id, answer)?;
        }
    }

    fn answered(&self, id: u64, answer: Result<Bytes, CallError>) -> Result<(), BadFrame> {
        let mut state = self.state.lock();
        match state.calls.get(&id) {
            Some(made) if made.sent => {}
            _ => return Err(BadFrame::NoCall(id)),
        }
        let made = state.calls.remove(&id).expect("seen above");
        state.answered = true;
        drop(state);
        self.free_slot();
        if let Some(waiting) = made.answer {
            // Who has gone in this moment does not want it.
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    /// Fails when the link is closed; closes it when it has been idle.
    fn tick(&self) -> Result<(), Fault> {
        let mut state = self.state.lock();
        if state.calls.is_empty() && state.last_call.elapsed() >= self.idle {
            self.close_locked(&mut state, Fault::Closed);
        }
        state.closed.clone().map_or(Ok(()), Err)
    }

    /// Ends all calls. Repeating it changes nothing.
    pub(crate) fn close(&self, fault: Fault) {
        let mut state = self.state.lock();
        self.close_locked(&mut state, fault);
    }

    fn close_locked(&self, state: &mut State, fault: Fault) {
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(fault.clone());
        self.slots.close();
        self.pulse.wake.notify_one();
        state.queue.clear();
        let left = state.calls.len();
        for (_, made) in state.calls.drain() {
            // A peer that stops has answered all that it had begun.
            let begun = made.sent && fault != Fault::Stopping;
            let error = match begun {
                true => CallError::Unknown(fault.clone()),
                false => CallError::NotSent(fault.clone()),
            };
            made.answer.map(|waiting| waiting.send(Err(error)));
        }
        self.metrics
            .in_flight
            .sub(i64::try_from(left).expect("fewer than slots"));
    }
}

/// A slot that was taken for a call.
pub(crate) struct Place {
    link: Arc<Link>,
    /// The call has it now.
    used: bool,
}

impl Place {
    /// Makes a call and waits for its answer until its deadline.
    pub(crate) async fn call(self, call: Outgoing) -> Result<Bytes, CallError> {
        let link = self.link.clone();
        let (bytes, max) = (wire::length(&call.body), link.call_bytes_max);
        if bytes > max {
            return Err(CallError::NotSent(Fault::TooLarge { bytes, max }));
        }
        let deadline = call.deadline;
        let mut waiting = link.enqueue(self, call)?;
        match tokio::time::timeout_at(deadline, &mut waiting.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => unreachable!("who forgets a call answers it"),
            Err(_) => match waiting.answer.try_recv() {
                Ok(answer) => answer,
                Err(_) if link.abandon(waiting.id) => Err(CallError::Unknown(Fault::Deadline)),
                Err(_) => Err(CallError::NotSent(Fault::Deadline)),
            },
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            self.link.slots.add_permits(1);
        }
    }
}

/// A call in flight; dropped, it is cancelled.
struct Waiting {
    place: Place,
    id: u64,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Most often the answer is here and the call forgotten.
        if !self.answer.is_terminated() {
            self.place.link.abandon(self.id);
        }
    }
}

/// At least one, since zero would be late.
fn millis(remaining: Duration) -> u32 {
    u32::try_from(remaining.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}
