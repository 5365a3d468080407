//! Planted bugs, for tests alone: a test that does not notice them proves nothing.

/// What a replica does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Votes and acknowledgements leave before they are durable.
    PromisesEarly,
    /// The leader counts its own entries as durable when they are not.
    CountsUnwritten,
    /// A replica has more than one vote in a term.
    VotesTwice,
    /// A leader answers reads without asking anybody.
    BelievesItLeads,
    /// Another member answers reads by what it knows itself.
    ReadsAlone,
    /// A leader takes for decided what it has written itself, whoever else has it.
    DecidesAlone,
}
