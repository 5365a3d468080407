//! What became of a restore, and how it is said.

use namespace::check::Report;

use crate::text::{bytes, count, counted};

pub(super) struct Outcome {
    pub(super) rows: u64,
    /// Of everything that is there now.
    pub(super) report: Report,
}

impl Outcome {
    /// Nothing that should be there is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.report.problems_total == 0
    }

    pub(super) fn text(&self) -> String {
        let Self { rows, report } = self;
        let mut text = format!(
            "Restored {} rows: {} in {}, {}, {}, {}.\n",
            count(*rows),
            bytes(report.bytes),
            counted(report.objects, "object"),
            counted(report.containers, "container"),
            counted(report.accounts, "account"),
            counted(report.users, "user"),
        );
        if self.is_whole() {
            text.push_str("All bodies are there. The server can be started.\n");
            return text;
        }
        text.push_str("The server can be started; this is missing or wrong:\n");
        if report.lost_total > 0 {
            let lost = counted(report.lost_total, "object");
            text.push_str(&format!("\n{lost} without a body, or part of it:\n"));
            list(&mut text, &report.lost, report.lost_total);
        }
        let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        let total = counted(report.problems_total, "problem");
        text.push_str(&format!("\n{total} of chunks and rows:\n"));
        list(&mut text, &problems, report.problems_total);
        text
    }
}

pub(crate) fn list(text: &mut String, lines: &[String], total: u64) {
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    let more = total - lines.len() as u64;
    if more > 0 {
        text.push_str(&format!("  and {} more\n", count(more)));
    }
}
