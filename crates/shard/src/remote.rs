//! Asking where a shard is led.

use std::time::Duration;

use base::DeviceId;
use bytes::Bytes;

use crate::replica::Refusal;
use crate::table::Table;
use crate::wire::{self, Answer, Reply};
use crate::{Error, Execution, Shard, Wire};

/// Asks the node of a device.
pub(crate) async fn ask<T: Wire, E: Wire>(
    table: &Table,
    to: DeviceId,
    shard: &Shard,
    name: &'static str,
    call: Bytes,
) -> Result<T, Refusal<E>> {
    let Some(outside) = &table.post.outside else {
        return Err(Refusal::Elsewhere(None));
    };
    match outside.call(to, shard.id(), name, call).await {
        Ok(answer) => understand(shard, name, &answer),
        // Another one may lead by now.
        Err(Error::Unavailable { .. }) => Err(Refusal::Elsewhere(None)),
        Err(error) => Err(error.into()),
    }
}

fn understand<T: Wire, E: Wire>(
    shard: &Shard,
    name: &'static str,
    answer: &[u8],
) -> Result<T, Refusal<E>> {
    let Reply { position, answer } = match wire::decode(answer) {
        Ok(reply) => reply,
        Err(malformed) => {
            tracing::warn!(shard = %shard.id(), name, %malformed, "an answer was not understood");
            return Err(Error::Unknown.into());
        }
    };
    shard.saw(position);
    match answer {
        Answer::Done(output) => Ok(output),
        Answer::Refused(error) => Err(Refusal::Failed(Execution::Refused(error))),
        Answer::Failed(error) => Err(error.into()),
        Answer::Elsewhere(hint) => Err(Refusal::Elsewhere(hint)),
        Answer::Forgotten(position) => Err(Refusal::Forgotten(position)),
        Answer::NotUnderstood(why) => {
            // The leader is of another version than this node; another one may follow it.
            tracing::warn!(shard = %shard.id(), name, why, "a call was not understood");
            let retry_in = Duration::from_secs(5);
            Err(Error::Unavailable { retry_in }.into())
        }
    }
}
