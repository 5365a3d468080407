//! What a call costs over loopback: `cargo run --release -p rpc --example echo [seconds]`.
//!
//! Caller and callee are one process, so CPU times are of both sides together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use rpc::{Authority, Call, Config, Credentials, Lane, Listener, NodeKey, Peers, Service};
use tokio::net::TcpListener;
use tokio::time::Instant;

type Error = Box<dyn std::error::Error + Send + Sync>;

const CALLEE: NodeId = NodeId(1);
const CALLER: NodeId = NodeId(2);

/// Gives the body back.
const ECHO: u16 = 0;
/// Takes the body, as a write of a chunk does.
const SINK: u16 = 1;
/// Gives 4 MiB, as a read of a chunk does.
const SOURCE: u16 = 2;

struct Echo(Bytes);

impl Service for Echo {
    fn admits(&self, _: NodeId) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        match call.service {
            ECHO => Ok(vec![call.body]),
            SINK => Ok(vec![]),
            _ => Ok(vec![self.0.clone()]),
        }
    }

    async fn join(&self, _: SocketAddr, _: Bytes) -> Result<Bytes, Bytes> {
        Err("this cluster is complete".into())
    }
}

fn credentials(authority: &Authority, node: NodeId) -> Result<Credentials, Error> {
    let key = NodeKey::generate()?;
    let certificate = authority.sign(node, key.public())?;
    Ok(key.certified(certificate, authority.certificate().to_vec())?)
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// Calls with so many callers for so long; returns the calls, their time and their CPU time.
async fn load(
    peers: &Peers,
    lane: Lane,
    service: u16,
    body: &Bytes,
    callers: usize,
    seconds: u64,
) -> Result<(f64, Duration, Duration), Error> {
    let calls = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (start, cpu_start) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (peers, body) = (peers.clone(), body.clone());
            let (calls, stop) = (calls.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let deadline = Instant::now() + Duration::from_secs(10);
                    let pieces = vec![body.clone()];
                    peers.call(CALLEE, lane, service, pieces, deadline).await?;
                    calls.fetch_add(1, Relaxed);
                }
                Ok::<_, rpc::CallError>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok((
        calls.load(Relaxed) as f64,
        start.elapsed(),
        cpu() - cpu_start,
    ))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    let authority = Authority::new(1)?;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let address = tcp.local_addr()?;
    let chunk = Bytes::from(vec![0x5a; 4 << 20]);
    let callee = credentials(&authority, CALLEE)?;
    let listener = Listener::new(tcp, &callee, Config::default(), Echo(chunk.clone()))?;
    tokio::spawn(async move { listener.serve(std::future::pending()).await });
    let caller = credentials(&authority, CALLER)?;
    let peers = Peers::new(&caller, Config::default(), move |_| Some(address))?;

    let small = Bytes::from(vec![0x5a; 300]);
    for callers in [1, 16, 256, 2_000] {
        let result = load(&peers, Lane::Small, ECHO, &small, callers, seconds).await?;
        let (calls, took, cpu) = result;
        let rate = calls / took.as_secs_f64();
        let each = cpu.as_secs_f64() * 1e6 / calls;
        println!("300 B, {callers:>4} callers: {rate:>8.0} calls/s, {each:>5.1} us of CPU a call");
    }
    for (what, service, body) in [("writes", SINK, &chunk), ("reads", SOURCE, &small)] {
        for callers in [1, 8] {
            let result = load(&peers, Lane::Bulk, service, body, callers, seconds).await?;
            let (calls, took, cpu) = result;
            let bytes = calls * chunk.len() as f64;
            let rate = bytes / took.as_secs_f64() / 1e6;
            let each = cpu.as_secs_f64() * 1e6 / (bytes / f64::from(1 << 20));
            println!(
                "4 MiB {what}, {callers} callers: {rate:>6.0} MB/s, {each:>5.0} us of CPU a MiB"
            );
        }
    }
    Ok(())
}
