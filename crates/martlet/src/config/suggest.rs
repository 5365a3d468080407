//! "Did you mean ...?"

/// The candidate that a mistyped word most likely meant, if any is near enough.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    /// A third of the letters may be wrong: beyond that a suggestion misleads.
    const LETTERS_PER_FAULT: usize = 3;
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(faults, candidate)| faults * LETTERS_PER_FAULT <= candidate.len().max(word.len()))
        .min_by_key(|(faults, _)| *faults)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour to make one
/// word the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        let known = ["listen", "admin_listen", "data", "buffer_bytes"];
        assert_eq!(nearest(word, known.into_iter()), expected);
    }

    #[test]
    fn small_slips_are_understood() {
        check("lisen", Some("listen"));
        check("lsiten", Some("listen"));
        check("adminlisten", Some("admin_listen"));
        check("buffer_size", Some("buffer_bytes"));
        check("bufer_byte", Some("buffer_bytes"));
        check("date", Some("data"));
    }

    #[test]
    fn what_is_far_from_everything_gets_no_suggestion() {
        check("port", None);
        check("", None);
        check("colour", None);
    }
}
