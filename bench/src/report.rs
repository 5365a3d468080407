//! The table.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// One comparison.
#[derive(Clone, Debug)]
struct Row {
    what: &'static str,
    unit: Unit,
    ours: f64,
    /// With whom or what it is compared.
    than: &'static str,
    theirs: f64,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    PerSecond,
    BytesPerSecond,
    Bytes,
    Milliseconds,
    Seconds,
}

/// What the ratio of ours to theirs should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    Nothing,
}

impl Unit {
    fn show(self, value: f64) -> String {
        const MIB: f64 = (1 << 20) as f64;
        match self {
            Self::PerSecond => format!("{value:.0}/s"),
            Self::BytesPerSecond => format!("{:.0} MiB/s", value / MIB),
            Self::Bytes => format!("{:.0} MiB", value / MIB),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Seconds => format!("{value:.2} s"),
        }
    }
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    fn verdict(&self) -> String {
        let (bound, wanted, met) = match self.wanted {
            Wanted::AtLeast(bound) => (bound, "≥", self.ratio() >= bound),
            Wanted::AtMost(bound) => (bound, "≤", self.ratio() <= bound),
            Wanted::Nothing => return "–".to_owned(),
        };
        format!("{wanted} {bound}: {}", if met { "yes" } else { "**no**" })
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": format!("{:?}", self.unit), "ours": self.ours, "than": self.than,
            "theirs": self.theirs, "ratio": self.ratio(), "wanted": self.verdict(),
        })
    }
}

/// All rows of a run, and what they were measured on.
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    short: bool,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(facts: Vec<(&'static str, String)>, short: bool) -> Self {
        Self {
            facts,
            short,
            rows: Vec::new(),
        }
    }

    /// Begins the comparisons of one figure of ours: the median of its rounds.
    pub(crate) fn measured(
        &mut self,
        what: &'static str,
        unit: Unit,
        rounds: Vec<f64>,
    ) -> Ours<'_> {
        Ours {
            report: self,
            what,
            unit,
            value: median(rounds),
        }
    }

    /// Writes the table to `path` and the figures beside it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.to_string())?;
        let facts: serde_json::Map<_, _> = self
            .facts
            .iter()
            .map(|(name, fact)| ((*name).to_owned(), json!(fact)))
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let figures = json!({ "machine": facts, "short": self.short, "rows": rows });
        fs::write(path.with_extension("json"), format!("{figures:#}\n"))?;
        Ok(())
    }
}

/// A figure of ours that is being compared.
pub(crate) struct Ours<'a> {
    report: &'a mut Report,
    what: &'static str,
    unit: Unit,
    value: f64,
}

impl Ours<'_> {
    /// Compares it with the median of these rounds.
    pub(crate) fn against(self, than: &'static str, rounds: Vec<f64>, wanted: Wanted) -> Self {
        let Self {
            what,
            unit,
            value: ours,
            ..
        } = self;
        let row = Row {
            what,
            unit,
            ours,
            than,
            theirs: median(rounds),
            wanted,
        };
        eprintln!(
            "{what}: {}, {} times {than}",
            unit.show(ours),
            two_digits(row.ratio())
        );
        self.report.rows.push(row);
        self
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn two_digits(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}")
    } else {
        format!("{ratio:.2}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Results\n\nWritten by `bench/run`; [docs/proof.md](../docs/proof.md) says how it measures.\n"
        )?;
        if self.short {
            writeln!(f, "**The short form: these figures mean nothing.**\n")?;
        }
        writeln!(f, "| | Martlet | compared with | theirs | ratio | wanted |")?;
        writeln!(f, "| --- | ---: | --- | ---: | ---: | --- |")?;
        for row in &self.rows {
            let (ours, theirs) = (row.unit.show(row.ours), row.unit.show(row.theirs));
            let (ratio, verdict) = (two_digits(row.ratio()), row.verdict());
            writeln!(
                f,
                "| {} | {ours} | {} | {theirs} | {ratio} | {verdict} |",
                row.what, row.than
            )?;
        }
        writeln!(f, "\n| machine | |\n| --- | --- |")?;
        self.facts
            .iter()
            .try_for_each(|(name, fact)| writeln!(f, "| {name} | {fact} |"))
    }
}
