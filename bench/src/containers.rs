//! A container's size must not be felt; nor at a start after a crash.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Effort;
use crate::load::{self, Figures, Target};
use crate::report::{Report, Unit, Wanted};
use crate::systems::{Bench, Martlet};

/// Objects in the small container, and in each directory of the large one: so both listings are alike.
const SMALL_OBJECTS: u64 = 1_000;
/// Of each kind: single requests are few for a 99th percentile, so there are more of them.
const ROUNDS: usize = 5;
const START_SECONDS_MAX: f64 = 5.0;

pub(crate) fn measure(bench: &Bench, effort: Effort, report: &mut Report) -> Result<()> {
    let volume = bench.volume("martlet")?;
    let martlet = Martlet::start(bench, &volume)?;
    let containers = Containers {
        program: &bench.martlet,
        target: &martlet.target,
    };
    containers.fill("small", SMALL_OBJECTS)?;
    containers.fill("large", effort.container_objects)?;

    let (mut puts, mut lists) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (which, container) in ["small", "large"].into_iter().enumerate() {
            puts[which].push(containers.overwrite(container)?.latency_ms.p99);
            lists[which].push(containers.list(container)?.latency_ms.p50);
        }
    }
    let mut compare = |what, [small, large]: [Vec<f64>; 2]| {
        report.measured(what, Unit::Milliseconds, large).against(
            "the same with 1,000 objects",
            small,
            Wanted::AtMost(1.3),
        );
    };
    compare(
        "PUT into a container of 1 million objects, 99th percentile",
        puts,
    );
    compare(
        "1,000 keys listed of 1 million by prefix and delimiter, median",
        lists,
    );

    let Martlet {
        mut server, launch, ..
    } = martlet;
    server.kill()?;
    let before = Instant::now();
    let server = launch.start()?;
    let took = before.elapsed().as_secs_f64();
    report
        .measured(
            "start after kill -9 with 1 million objects",
            Unit::Seconds,
            vec![took],
        )
        .against("the bound", vec![START_SECONDS_MAX], Wanted::AtMost(1.0));
    ensure!(server.stop()?.success(), "martlet did not stop well");
    Ok(())
}

struct Containers<'a> {
    program: &'a Path,
    target: &'a Target,
}

impl Containers<'_> {
    fn run(&self, arguments: &str) -> Result<Figures> {
        load::run(self.program, self.target, arguments)
    }

    fn fill(&self, container: &str, objects: u64) -> Result<()> {
        eprintln!("{objects} objects into {container}");
        let dirs = objects / SMALL_OBJECTS;
        self.run(&format!(
            "put --container {container} --count {objects} --dirs {dirs} --size 1KiB -c 64"
        ))?;
        Ok(())
    }

    /// The same objects each time, so that no container grows.
    fn overwrite(&self, container: &str) -> Result<Figures> {
        self.run(&format!(
            "put --container {container} --count 1000 --prefix again/ --size 4KiB -c 8"
        ))
    }

    fn list(&self, container: &str) -> Result<Figures> {
        self.run(&format!(
            "list --container {container} --count 100 --list-prefix d0000/ --delimiter / --limit 1000 -c 1"
        ))
    }
}
