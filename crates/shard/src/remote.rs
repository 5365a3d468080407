//! Shards that another node leads.

use std::time::Duration;

use base::{DeviceId, ShardId};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::peers::Post;
use crate::replica::Refusal;
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
    understand(shard, name, &answer).map_err(|refusal| match refusal {
        Refusal::Failed(error) => error,
        Refusal::Elsewhere(_) => {
            let retry_in = Duration::from_millis(200);
            Error::Unavailable { retry_in }.into()
        }
    })
}

/// Asks the node of a device.
pub(crate) async fn ask<C: Wire, T: Wire, E: Wire>(
    post: &Post,
    to: DeviceId,
    shard: ShardId,
    name: &'static str,
    call: &C,
) -> Result<T, Refusal<E>> {
    let Some(outside) = &post.outside else {
        return Err(Refusal::Elsewhere(None));
    };
    let answer = outside.call(to, shard, name, wire::encode(call)).await;
    match answer {
        Ok(answer) => understand(shard, name, &answer),
        // Another one may lead by now.
        Err(Error::Unavailable { .. }) => Err(Refusal::Elsewhere(None)),
        Err(error) => Err(error.into()),
    }
}

fn understand<T: Wire, E: Wire>(
    shard: ShardId,
    name: &'static str,
    answer: &[u8],
) -> Result<T, Refusal<E>> {
    match wire::decode(answer) {
        Ok(Answer::Done(output)) => Ok(output),
        Ok(Answer::Refused(error)) => Err(Refusal::Failed(Execution::Refused(error))),
        Ok(Answer::Failed(error)) => Err(error.into()),
        Ok(Answer::Elsewhere(hint)) => Err(Refusal::Elsewhere(hint)),
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
