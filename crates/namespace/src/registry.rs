//! All procedures and queries of the namespace by their names on the wire.

use shard::Registry;

use crate::{
    account, container, expiry, garbage, object, owner, pending, reader, renew, rows, users, write,
};

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
        .procedure::<pending::Sign>()
        .procedure::<pending::GiveUp>()
        .procedure::<renew::Renew>()
        .procedure::<users::Write>()
        .procedure::<users::Secret>()
        .query::<rows::Get>()
        .query::<rows::Counts>()
        .query::<rows::GetPage>()
        .query::<account::ReadLines>()
        .query::<account::LookUp>()
        .query::<container::Get>()
        .query::<container::GetHeld>()
        .query::<object::Find>()
        .query::<object::Get>()
        .query::<object::GetInline>()
        .query::<object::List>()
        .query::<reader::GetPart>()
        .query::<owner::FindOwner>()
        .query::<renew::FindGarbage>()
        .query::<expiry::FindDue>()
        .query::<expiry::FindAllExpired>()
}
