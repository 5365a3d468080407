//! Many slow uploads at once: memory follows the budget, not the clients.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::load;
use crate::report::{Report, Unit, Wanted};
use crate::systems::{Bench, Martlet};

/// What each client sends in a second.
const PACE: &str = "1MiB";
const MEMORY_BYTES_MAX: f64 = (512 << 20) as f64;

pub(crate) fn measure(bench: &Bench, effort: Effort, report: &mut Report) -> Result<()> {
    let volume = bench.volume("martlet")?;
    let martlet = Martlet::start(bench, &volume)?;
    let (uploads, bytes) = (
        effort.slow_uploads.to_string(),
        effort.slow_bytes.to_string(),
    );
    let arguments = [
        "--container",
        "slow",
        "--size",
        &bytes,
        "--count",
        &uploads,
        "-c",
        &uploads,
        "--pace",
        PACE,
        "--timeout",
        "10m",
    ];
    eprintln!("{uploads} uploads at {PACE} a second");
    load::run(&bench.martlet, &martlet.target, "put", &arguments)?;
    let peak = martlet.peak_memory()? as f64;
    report
        .measured(
            "resident memory at most, 200 slow uploads of 64 MiB at once",
            Unit::Bytes,
            vec![peak],
        )
        .against("the bound", vec![MEMORY_BYTES_MAX], Wanted::AtMost(1.0));
    ensure!(
        martlet.server.stop()?.success(),
        "martlet did not stop well"
    );
    Ok(())
}
