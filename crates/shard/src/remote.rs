//! Shards that another node leads.

use std::time::Duration;

use base::ShardId;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::wire::{self, Answer};
use crate::{Error, Execution, Wire};

/// Has calls run where a shard is led.
pub trait Remote: Send + Sync + 'static {
    /// The encoded answer of the shard's leader to an encoded call, as [`crate::Registry::call`]
    /// gives it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the call was certainly not run, else [`Error::Unknown`].
    fn call(
        &self,
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>>;
}

/// Calls what `call` encodes.
pub(crate) async fn call<C: Wire, T: Wire, E: Wire>(
    remote: &dyn Remote,
    shard: ShardId,
    name: &'static str,
    call: C,
) -> Result<T, Execution<E>> {
    let call = wire::encode(&call);
    let answer = remote.call(shard, name, call).await?;
    match wire::decode(&answer) {
        Ok(Answer::Done(output)) => Ok(output),
        Ok(Answer::Refused(error)) => Err(Execution::Refused(error)),
        Ok(Answer::Failed(error)) => Err(error.into()),
        Ok(Answer::NotUnderstood(why)) => {
            // The leader is of another version than this node; another one may follow it.
            tracing::warn!(%shard, name, why, "a call was not understood");
            let retry_in = Duration::from_secs(5);
            Err(Error::Unavailable { retry_in }.into())
        }
        Err(malformed) => {
            tracing::warn!(%shard, name, %malformed, "an answer was not understood");
            Err(Error::Unknown.into())
        }
    }
}
