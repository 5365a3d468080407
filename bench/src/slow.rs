//! Many slow uploads at once: memory follows the budget, not the clients.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Effort;
use crate::load;
use crate::report::{Report, Unit, Wanted};
use crate::systems::{Bench, Martlet, Memory};

/// What each client sends in a second.
const PACE: &str = "1MiB";
const MEMORY_BYTES_MAX: f64 = (512 << 20) as f64;

pub(crate) fn measure(bench: &Bench, effort: Effort, report: &mut Report) -> Result<()> {
    let volume = bench.volume("martlet")?;
    let martlet = Martlet::start(bench, &volume)?;
    let fresh = slow_uploads(bench, effort, &martlet)?;
    other_load(bench, effort, &martlet)?;
    let later = slow_uploads(bench, effort, &martlet)?;
    let mut row = |what, bytes: u64, wanted| {
        report
            .measured(what, Unit::Bytes, vec![bytes as f64])
            .against("the bound", vec![MEMORY_BYTES_MAX], wanted);
    };
    row(
        "resident at most, 200 slow uploads of 64 MiB at once",
        fresh.own + fresh.mapped,
        Wanted::AtMost(1.0),
    );
    row(
        "the same after other load, without mapped files",
        later.own,
        Wanted::AtMost(1.0),
    );
    row("mapped files then", later.mapped, Wanted::Nothing);
    ensure!(
        martlet.server.stop()?.success(),
        "martlet did not stop well"
    );
    Ok(())
}

/// Returns the most memory that was resident meanwhile.
fn slow_uploads(bench: &Bench, effort: Effort, martlet: &Martlet) -> Result<Memory> {
    let Effort {
        slow_uploads: uploads,
        slow_bytes: bytes,
        ..
    } = effort;
    eprintln!("{uploads} uploads at {PACE} a second");
    let put = format!(
        "put --container slow --size {bytes} --count {uploads} -c {uploads} --pace {PACE} --timeout 10m"
    );
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let peak = scope.spawn(|| peak_memory(martlet, &is_over));
        let put = load::run(&bench.martlet, &martlet.target, &put);
        is_over.store(true, Relaxed);
        put?;
        peak.join().expect("nothing in it panics")
    })
}

fn peak_memory(martlet: &Martlet, is_over: &AtomicBool) -> Result<Memory> {
    let mut peak = Memory::default();
    while !is_over.load(Relaxed) {
        let now = martlet.memory()?;
        peak.own = peak.own.max(now.own);
        peak.mapped = peak.mapped.max(now.mapped);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(peak)
}

/// What else a server does, so that all its buffers and caches have been in use.
fn other_load(bench: &Bench, effort: Effort, martlet: &Martlet) -> Result<()> {
    let (seconds, large) = (effort.duration.as_secs(), effort.large_objects);
    for load in [
        format!("put --container other --size 4KiB --duration {seconds}s -c 128"),
        "get --container other --size 4KiB --count 1000 -c 128".to_owned(),
        format!("put --container large --size 64MiB --count {large} -c 8"),
        format!("get --container large --size 64MiB --count {large} -c 8"),
    ] {
        load::run(&bench.martlet, &martlet.target, &load)?;
    }
    Ok(())
}
