//! The callee's end of a connection: runs handlers, answers each call exactly once.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::{FREE_BYTES, Lane};
use crate::error::Fault;
use crate::frame::{BadFrame, Header, Hello, Kind, NotTaken};
use crate::server::{Call, Service, Shared};
use crate::wire::{self, Batch, FrameReader, Pulse};

pub(crate) struct Session<S> {
    shared: Arc<Shared<S>>,
    node: NodeId,
    lane: Lane,
    in_flight_max: usize,
    call_bytes_max: usize,
    /// What the caller takes.
    answer_bytes_max: usize,
    pulse: Arc<Pulse>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Handlers that run; for a moment at the start of one, there is no handle yet.
    running: HashMap<u64, Option<AbortHandle>>,
    /// Answers to be written. With `running`, at most `in_flight_max`.
    answers: VecDeque<Reply>,
    stopping: bool,
}

struct Reply {
    id: u64,
    kind: Kind,
    tag: u16,
    body: Vec<Bytes>,
}

impl<S: Service> Session<S> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        node: NodeId,
        lane: Lane,
        theirs: &Hello,
        pulse: Arc<Pulse>,
    ) -> Arc<Self> {
        let ours = shared.config.hello(lane);
        let wide = |narrow: u32| usize::try_from(narrow).expect("32 bits fit");
        Arc::new(Self {
            node,
            lane,
            in_flight_max: wide(ours.in_flight_max),
            call_bytes_max: wide(ours.body_bytes_max),
            answer_bytes_max: wide(ours.body_bytes_max.min(theirs.body_bytes_max)),
            pulse,
            state: Mutex::default(),
            shared,
        })
    }

    /// Moves the connection until it breaks, or `stop` says so and no call is left.
    pub(crate) async fn run<R, W>(
        self: Arc<Self>,
        reader: &mut FrameReader<R>,
        writer: &mut W,
        stop: watch::Receiver<bool>,
    ) -> Fault
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let _cut_off = CutOff(&self.state);
        tokio::select! {
            Err(fault) = self.read(reader) => fault,
            Err(fault) = wire::write(writer, &self.pulse, |batch| self.fill(batch)) => fault,
            fault = self.pulse.watch(|| Ok(())) => fault,
            Err(fault) = self.stop(stop) => fault,
        }
    }

    async fn stop(&self, mut stop: watch::Receiver<bool>) -> Result<Infallible, Fault> {
        // An error means that the listener is gone, which is a stop too.
        let _ = stop.wait_for(|stop| *stop).await;
        self.state.lock().stopping = true;
        self.pulse.wake.notify_one();
        std::future::pending().await
    }

    /// Takes the answers that wait to be written.
    fn fill(&self, batch: &mut Batch) -> Result<(), Fault> {
        let mut state = self.state.lock();
        if state.stopping && state.running.is_empty() && state.answers.is_empty() {
            return Err(Fault::Stopping);
        }
        while !batch.is_full()
            && let Some(reply) = state.answers.pop_front()
        {
            let header = Header {
                tag: reply.tag,
                ..Header::new(reply.kind, reply.id, wire::fit(wire::length(&reply.body)))
            };
            batch.push(header, reply.body);
        }
        Ok(())
    }

    async fn read<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        reader: &mut FrameReader<R>,
    ) -> Result<Infallible, Fault> {
        loop {
            let header = reader.header().await?;
            let bytes = header.body_within(self.call_bytes_max)?;
            match header.kind {
                Kind::Call => {
                    let deadline =
                        Instant::now() + Duration::from_millis(header.remaining_ms.into());
                    let room = self.room(bytes).await;
                    let body = reader.body(bytes).await?;
                    self.begin(&header, body, deadline, room)?;
                }
                Kind::Cancel => {
                    reader.body(bytes).await?;
                    self.cancel(header.id);
                }
                Kind::Alive => drop(reader.body(bytes).await?),
                Kind::Hello | Kind::Answer | Kind::Refused | Kind::NotTaken | Kind::Unfinished => {
                    return Err(BadFrame::Unexpected(header.kind).into());
                }
            }
        }
    }

    /// Waits for memory; meanwhile nothing is read, and TCP lets the caller wait.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= FREE_BYTES {
            return None;
        }
        let room = self.shared.room(self.lane);
        let most = self.shared.config.lane(self.lane).handling_bytes_max;
        let bytes = wire::fit(bytes.min(most));
        if let Ok(permit) = room.clone().try_acquire_many_owned(bytes) {
            return Some(permit);
        }
        self.shared.metrics.lane(self.lane).waits.inc();
        let permit = room.clone().acquire_many_owned(bytes);
        Some(self.pulse.deaf(permit).await.expect("never closed"))
    }

    fn begin(
        self: &Arc<Self>,
        header: &Header,
        body: Bytes,
        deadline: Instant,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), BadFrame> {
        let id = header.id;
        let admitted = self.shared.service.admits(self.node);
        let mut state = self.state.lock();
        if state.running.len() + state.answers.len() >= self.in_flight_max {
            return Err(BadFrame::TooMany);
        }
        if state.running.contains_key(&id) {
            return Err(BadFrame::CallTwice(id));
        }
        let not_taken = match (admitted, state.stopping) {
            (false, _) => Some(NotTaken::Stranger),
            (true, true) => Some(NotTaken::Stopping),
            (true, false) if room.is_some() && Instant::now() >= deadline => Some(NotTaken::Late),
            (true, false) => None,
        };
        if let Some(reason) = not_taken {
            state.answers.push_back(Reply {
                id,
                kind: Kind::NotTaken,
                tag: reason as u16,
                body: vec![],
            });
            self.pulse.wake.notify_one();
            return Ok(());
        }
        let call = Call {
            from: self.node,
            lane: self.lane,
            service: header.tag,
            body,
            deadline,
        };
        let duty = Duty {
            session: self.clone(),
            id,
            reply: (Kind::Unfinished, vec![]),
            late: false,
            room,
        };
        duty.metrics().calls.inc();
        duty.metrics().in_flight.add(1);
        state.running.insert(id, None);
        // Not under the lock: a runtime that is being stopped drops the task here and now.
        drop(state);
        let task = tokio::spawn(duty.fulfil(call));
        if let Some(handle) = self.state.lock().running.get_mut(&id) {
            *handle = Some(task.abort_handle());
        }
        Ok(())
    }

    fn cancel(&self, id: u64) {
        // Often it has been answered already.
        let handler = self.state.lock().running.get(&id).cloned().flatten();
        if let Some(handler) = handler {
            handler.abort();
        }
    }
}

/// Ends what still runs when the connection ends.
struct CutOff<'a>(&'a Mutex<State>);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        let running = std::mem::take(&mut self.0.lock().running);
        for handler in running.into_values().flatten() {
            handler.abort();
        }
    }
}

/// That a call gets one answer, whether its handler ends, panics or is cancelled.
struct Duty<S: Service> {
    session: Arc<Session<S>>,
    id: u64,
    reply: (Kind, Vec<Bytes>),
    /// The deadline passed before the handler ended.
    late: bool,
    /// The memory of the call's body.
    room: Option<OwnedSemaphorePermit>,
}

impl<S: Service> Duty<S> {
    async fn fulfil(mut self, call: Call) {
        let (deadline, service) = (call.deadline, call.service);
        let handler = self.session.shared.service.call(call);
        let reply = match tokio::time::timeout_at(deadline, handler).await {
            Ok(Ok(answer)) => (Kind::Answer, answer),
            Ok(Err(refusal)) => (Kind::Refused, vec![refusal]),
            Err(_) => {
                self.late = true;
                return;
            }
        };
        let (bytes, max) = (wire::length(&reply.1), self.session.answer_bytes_max);
        if bytes > max {
            tracing::error!(service, bytes, max, "an answer is too large to be sent");
            return;
        }
        self.reply = reply;
    }

    fn metrics(&self) -> &crate::metrics::Handling {
        self.session.shared.metrics.lane(self.session.lane)
    }
}

impl<S: Service> Drop for Duty<S> {
    fn drop(&mut self) {
        self.metrics().in_flight.sub(1);
        drop(self.room.take());
        let (kind, body) = std::mem::replace(&mut self.reply, (Kind::Unfinished, vec![]));
        let reply = Reply {
            id: self.id,
            kind,
            tag: u16::from(self.late),
            body,
        };
        let mut state = self.session.state.lock();
        state.running.remove(&self.id);
        state.answers.push_back(reply);
        drop(state);
        self.session.pulse.wake.notify_one();
    }
}
