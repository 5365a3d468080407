//! The authority, and the tokens that let nodes in.
//!
//! A token lets one node in: the commit that adds the node marks the token as used. Its answer may be lost, so
//! the node's public key is kept. Who asks again with that key is told the same number: with the same token
//! until that expires, then with another one. A used token is refused to any other key.

use std::ops::Bound;

use base::{DeviceId, NodeId, Timestamp};
use bytes::Bytes;
use map::{Device, Map, Node, State};
use rpc::{Denied, Secret, TokenRecord};
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, Scan, View};

use super::row::{self, AuthorityRow};
use super::{Planned, Refusal, map_latch, put_map, refuse};

/// Each is a row of some 100 B that is looked at when another is made.
pub(super) const TOKENS_MAX: usize = 1_000;
/// Of one node. What a request to join has room for.
pub(crate) const DEVICES_MAX: usize = 128;
pub(super) const ADDRESSES_MAX: usize = 8;
const ADDRESS_BYTES_MAX: usize = 280;
const KEY_BYTES_MAX: usize = 256;

/// A token, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    pub record: TokenRecord,
    pub used_by: Option<NodeId>,
}

/// The key of a node that joined: [`rpc::NodeKey::public`].
#[derive(Serialize, Deserialize)]
pub(super) struct KeyRow {
    pub(super) public_key: Vec<u8>,
}

/// Gives the cluster its authority, unless it has one. Only where the control shard is: it has a key in it.
#[derive(Serialize, Deserialize)]
pub struct Establish {
    /// [`rpc::Authority::to_pem`].
    pub pem: String,
}

impl Procedure for Establish {
    const NAME: &'static str = "control.establish";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(Bytes::from_static(row::AUTHORITY))]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<()> {
        let mut batch = Batch::new();
        if view.get(row::AUTHORITY)?.is_none() {
            let pem = self.pem.clone();
            batch.put(row::AUTHORITY, row::encode(&AuthorityRow { pem }));
        }
        Ok((batch, ()))
    }
}

/// Adds a token; those that have expired are forgotten.
#[derive(Serialize, Deserialize)]
pub struct AddToken {
    pub record: TokenRecord,
}

impl Procedure for AddToken {
    const NAME: &'static str = "control.add_token";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Planned<()> {
        let mut batch = Batch::new();
        let mut left = 0;
        for token in tokens(view)? {
            match now < token.record.expires {
                true => left += 1,
                false => batch.delete(row::token(token.record.id)),
            }
        }
        if left >= TOKENS_MAX {
            return refuse(Refusal::TooManyTokens(left));
        }
        let state = TokenState {
            record: self.record.clone(),
            used_by: None,
        };
        batch.put(row::token(self.record.id), row::encode(&state));
        Ok((batch, ()))
    }
}

/// Takes a token back.
#[derive(Serialize, Deserialize)]
pub struct RemoveToken {
    pub id: u64,
}

impl Procedure for RemoveToken {
    const NAME: &'static str = "control.remove_token";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<()> {
        let key = row::token(self.id);
        if view.get(&key)?.is_none() {
            return refuse(Refusal::NoToken);
        }
        let mut batch = Batch::new();
        batch.delete(key);
        Ok((batch, ()))
    }
}

/// All tokens, also those that were used or have expired and are not forgotten yet.
#[derive(Serialize, Deserialize)]
pub struct ListTokens {}

impl Query for ListTokens {
    const NAME: &'static str = "control.list_tokens";

    type Output = Vec<TokenState>;
    type Error = Refusal;

    fn answer(&self, view: &View) -> Result<Vec<TokenState>, Execution<Refusal>> {
        tokens(view)
    }
}

fn tokens(view: &View) -> Result<Vec<TokenState>, Execution<Refusal>> {
    let mut rows = Vec::new();
    let (from, to) = (
        Bound::Included(row::TOKENS),
        Bound::Excluded(row::TOKENS_END),
    );
    view.scan(from, to, &mut |_, value| {
        rows.push(row::decode(value));
        Scan::Next
    })?;
    rows.into_iter().collect()
}

/// What a new node says: with which token it comes, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: u64,
    pub secret: Secret,
    /// [`rpc::NodeKey::public`].
    pub public_key: Vec<u8>,
    /// Where its node port will be, the best first.
    pub addresses: Vec<String>,
    pub zone: String,
    /// Their ids, and the bytes of their file systems.
    pub devices: Vec<(DeviceId, u64)>,
}

/// What a new node must know besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub node: NodeId,
    pub map: Map,
}

/// Lets a node in: the token is used and the node in the map, in one commit.
#[derive(Serialize, Deserialize)]
pub struct Join {
    pub request: JoinRequest,
}

impl Procedure for Join {
    const NAME: &'static str = "control.join";

    type Output = Joined;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Planned<Joined> {
        let request = &self.request;
        let key = row::token(request.token);
        let Some(token) = row::get::<TokenState>(view, &key)? else {
            return refuse(Refusal::NoToken);
        };
        if let Err(denied) = token.record.check(&request.secret, now) {
            return refuse(match denied {
                Denied::Expired(at) => Refusal::TokenExpired(at),
                Denied::Secret => Refusal::WrongSecret,
            });
        }
        let map = row::map(view)?;
        let known = node_with(view, &request.public_key)?;
        match (token.used_by, known) {
            (Some(node), known) if known == Some(node) => {
                return Ok((Batch::new(), Joined { node, map }));
            }
            (Some(node), _) => return refuse(Refusal::TokenUsed(node)),
            (None, _) => {}
        }
        let mut batch = Batch::new();
        let (node, map) = match known {
            Some(node) => (node, map),
            None => {
                let (node, map) = request.enter(map).map_err(Execution::Refused)?;
                let public_key = request.public_key.clone();
                batch.put(row::node_key(node), row::encode(&KeyRow { public_key }));
                put_map(&mut batch, &map);
                (node, map)
            }
        };
        let state = TokenState {
            record: token.record,
            used_by: Some(node),
        };
        batch.put(key, row::encode(&state));
        Ok((batch, Joined { node, map }))
    }
}

/// The node that joined with this key.
fn node_with(view: &View, public_key: &[u8]) -> Result<Option<NodeId>, Execution<Refusal>> {
    let mut found = None;
    let (from, to) = (Bound::Included(row::KEYS), Bound::Excluded(row::KEYS_END));
    view.scan(from, to, &mut |key, value| {
        let node = row::node_of(key);
        match row::decode::<KeyRow>(value) {
            Ok(row) if row.public_key != public_key => Scan::Next,
            Ok(_) => {
                found = Some(node);
                Scan::Stop
            }
            Err(damaged) => {
                found = Some(Err(damaged));
                Scan::Stop
            }
        }
    })?;
    found.transpose()
}

impl JoinRequest {
    /// The map with the new node in it.
    fn enter(&self, mut map: Map) -> Result<(NodeId, Map), Refusal> {
        let is_good = (1..=DEVICES_MAX).contains(&self.devices.len())
            && (1..=ADDRESSES_MAX).contains(&self.addresses.len())
            && self
                .addresses
                .iter()
                .all(|one| one.len() <= ADDRESS_BYTES_MAX)
            && self.public_key.len() <= KEY_BYTES_MAX;
        if !is_good {
            return Err(Refusal::BadRequest);
        }
        if self.zone.len() > super::nodes::ZONE_BYTES_MAX {
            return Err(Refusal::ZoneTooLong);
        }
        map.epoch = map.epoch.next();
        let id = NodeId(map.last_node.0 + 1);
        map.last_node = id;
        let node = Node {
            addresses: self.addresses.clone(),
            zone: self.zone.clone(),
            state: State::Up,
            is_draining: false,
        };
        map.nodes.insert(id, node);
        for (device, bytes) in &self.devices {
            let new = Device::new(id, *bytes);
            if map.devices.insert(*device, new).is_some() {
                return Err(Refusal::DeviceKnown(*device));
            }
        }
        Ok((id, map))
    }
}
