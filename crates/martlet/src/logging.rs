//! Where log lines go and what they look like.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Human { colour: bool },
    Json,
}

impl Format {
    fn of(setting: &str, is_terminal: bool) -> Self {
        match setting {
            "json" => Self::Json,
            "human" => Self::Human {
                colour: is_terminal,
            },
            _ if is_terminal => Self::Human { colour: true },
            _ => Self::Json,
        }
    }
}

/// Reads a filter: a level, or `part=level` for one part, separated by commas.
pub(crate) fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .parse(text)
        .with_context(|| format!("{text:?} is no log filter, such as info or info,swift=debug"))
}

/// Sends all log lines of the process to standard error, and panics into the log. Spans are lines, too, when they
/// end: with the time that they took.
pub(crate) fn start(filter: EnvFilter, format: &str) {
    let registry = tracing_subscriber::registry().with(filter);
    match Format::of(format, io::stderr().is_terminal()) {
        Format::Human { colour } => {
            let lines = fmt::layer().with_writer(io::stderr).with_ansi(colour);
            let lines = lines.with_span_events(FmtSpan::CLOSE);
            registry.with(lines).init();
        }
        Format::Json => {
            let lines = fmt::layer().json().flatten_event(true);
            let lines = lines.with_span_events(FmtSpan::CLOSE);
            registry.with(lines.with_writer(io::stderr)).init();
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!(place, thread, %trace, "a bug: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_prose_and_a_pipe_gets_json() {
        assert_eq!(Format::of("auto", true), Format::Human { colour: true });
        assert_eq!(Format::of("auto", false), Format::Json);
        assert_eq!(Format::of("human", false), Format::Human { colour: false });
        assert_eq!(Format::of("json", true), Format::Json);
    }

    #[test]
    fn a_filter_names_levels() {
        for text in ["info", "warn,swift=debug", "off"] {
            filter(text).unwrap();
        }
        let error = filter("info,swift=loud").unwrap_err().to_string();
        assert!(
            error.starts_with("\"info,swift=loud\" is no log filter"),
            "{error}"
        );
    }
}
