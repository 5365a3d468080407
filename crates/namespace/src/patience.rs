//! How long a request waits for a shard.
//!
//! A disk that hangs keeps a commit, and with it all that wait for the same latches, until it goes on; the log and
//! the latches are whole then. Whoever waits for them is told before.

use std::time::Duration;

use shard::{Procedure, Query, Shard};

use crate::Error;

/// The longest that a request waits for a shard: many times what the slowest working disk takes, and an
/// election, and less than clients wait for an answer.
pub(crate) const SHARD_TIME_MAX: Duration = Duration::from_secs(30);

/// Executes a procedure. What takes too long may have happened, or may yet.
pub(crate) async fn execute<P>(shard: &Shard, procedure: P) -> Result<P::Output, Error>
where
    P: Procedure<Error = Error>,
{
    match tokio::time::timeout(SHARD_TIME_MAX, shard.execute(procedure)).await {
        Ok(executed) => Ok(executed?),
        Err(_) => {
            tracing::warn!(shard = %shard.id(), procedure = P::NAME, "no answer: the outcome is unknown");
            Err(Error::Unknown)
        }
    }
}

/// Asks a query, which changes nothing however long it takes.
pub(crate) async fn query<Q>(shard: &Shard, query: Q) -> Result<Q::Output, Error>
where
    Q: Query<Error = Error>,
{
    match tokio::time::timeout(SHARD_TIME_MAX, shard.query(query)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::later()),
    }
}
