//! The settings as prose: the flags' help and `docs/ops/configuration.md`.

use super::Key;

impl Key {
    /// What stands behind the flag in `martlet server -h`.
    pub(crate) fn help(&self) -> String {
        format!(
            "{} [{}] (default {})",
            self.summary, self.kind, self.default
        )
    }

    /// What stands below the flag in `martlet server --help`.
    pub(crate) fn long_help(&self) -> String {
        let head = format!(
            "{}\n[{}] (default {})",
            self.summary, self.kind, self.default
        );
        match self.detail {
            "" => head,
            detail => format!("{head}\n\n{detail}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::super::KEYS;

    const DOCUMENT: &str = "../../docs/ops/configuration.md";
    const BEGIN: &str = "<!-- settings: made from crates/martlet/src/config/keys.rs -->\n";
    const END: &str = "<!-- end of settings -->\n";

    /// `BLESS=1` rewrites the part of the document that is made from the table.
    #[test]
    fn the_document_lists_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let document = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = document.split_once(BEGIN).expect("the mark is there");
        let (found, tail) = rest.split_once(END).expect("the mark is there");
        let expected = sections();
        if std::env::var_os("BLESS").is_some() {
            let document = format!("{head}{BEGIN}{expected}{END}{tail}");
            #[expect(
                clippy::disallowed_methods,
                reason = "a test may write its golden file"
            )]
            std::fs::write(&path, document).unwrap();
        } else {
            assert_eq!(
                found, expected,
                "run the tests once with BLESS=1 and review"
            );
        }
    }

    fn sections() -> String {
        let mut text = String::new();
        for key in KEYS {
            write!(
                text,
                "\n### `{}`\n\n{}.\n\n| | |\n|---|---|\n| values | {} |\n| default | `{}` |\n\
                 | flag | `--{}` |\n| environment | `{}` |\n",
                key.name,
                key.summary,
                key.kind,
                key.default,
                key.flag(),
                key.variable(),
            )
            .expect("a String takes all");
            if !key.detail.is_empty() {
                write!(text, "\n{}\n", key.detail).expect("a String takes all");
            }
        }
        text.push('\n');
        text
    }
}
