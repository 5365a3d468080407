//! Asking where a shard is led.

use std::time::Duration;

use base::{DeviceId, ShardId};

use crate::peers::Post;
use crate::replica::Refusal;
use crate::wire::{self, Answer};
use crate::{Error, Execution, Wire};

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
