//! All procedures of the namespace by their names on the wire.

use shard::Registry;

use crate::{account, container, expiry, garbage, map_row, pending, users, write};

/// What other nodes may call on the shards that this one leads.
pub fn registry() -> Registry {
    Registry::new()
        .procedure::<account::Update>()
        .procedure::<account::List>()
        .procedure::<account::Unlist>()
        .procedure::<account::Delete>()
        .procedure::<container::Put>()
        .procedure::<container::Delete>()
        .procedure::<write::put::Plan>()
        .procedure::<write::post::Plan>()
        .procedure::<write::delete::Plan>()
        .procedure::<expiry::Expire>()
        .procedure::<garbage::Remove>()
        .procedure::<pending::WritePart>()
        .procedure::<pending::GiveUp>()
        .procedure::<map_row::Join>()
        .procedure::<users::Write>()
        .procedure::<users::Secret>()
}
