//! How a process becomes a node: the first one by itself, every other by a token.

use std::net::SocketAddr;

use base::NodeId;
use map::Map;
use rpc::{Authority, CallError, Credentials, JoinToken, NodeKey};
use shard::{Execution, Shard};
use tokio::time::Instant;

use crate::control::{self, Establish, JoinRequest, Refusal};
use crate::home::{self, Home, Joining};
use crate::wire::{self, Declined, Welcome};

/// Why a process did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody of that cluster answered: another address may.
    #[error("joining through {address}: {source}")]
    Unreachable {
        address: SocketAddr,
        source: CallError,
    },
    #[error(transparent)]
    Declined(#[from] Declined),
    #[error(transparent)]
    Home(#[from] home::Error),
    /// Its data directory is that of a node of another cluster.
    #[error("this node is {0} of another cluster")]
    Stranger(NodeId),
}

impl Error {
    /// Whether asking again, the same node or another one, may end otherwise.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Declined(Declined::NotLeading | Declined::Unavailable(_)) => true,
            Self::Declined(Declined::Refused(_) | Declined::Malformed(_))
            | Self::Home(_)
            | Self::Stranger(_) => false,
        }
    }
}

/// Makes the first node of a cluster, or reads who it is if it was made before. The control shard is here.
pub async fn found(home: &Home, control: &Shard, cluster: u128) -> Result<Credentials, Error> {
    if let Some(known) = home.credentials()? {
        return match known.cluster() == cluster {
            true => Ok(known),
            false => Err(Error::Stranger(known.node())),
        };
    }
    let bad = |bad| Error::Home(home::Error::Credentials(bad));
    let pem = Authority::new(cluster).map_err(bad)?.to_pem();
    let established = control.execute(Establish { pem }).await;
    established.map_err(declined)?;
    let authority = {
        let view = control.view().await;
        let view = view.map_err(|error| declined(Execution::Shard(error)))?;
        control::authority(&view).map_err(declined)?
    };
    let key = NodeKey::generate().map_err(bad)?;
    let certificate = authority.sign(NodeId::FIRST, key.public()).map_err(bad)?;
    let authority = authority.certificate().to_vec();
    let credentials = key.certified(certificate, authority).map_err(bad)?;
    home.keep_credentials(&credentials)?;
    Ok(credentials)
}

fn declined(error: Execution<Refusal>) -> Error {
    Error::Declined(match error {
        Execution::Refused(refusal) => Declined::Refused(refusal),
        Execution::Shard(error) => Declined::Unavailable(error.to_string()),
    })
}

/// What a new node brings with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Where its node port will be, the best first.
    pub addresses: Vec<String>,
    pub zone: String,
    /// The sizes of its file systems, in the order of [`Joining::devices`].
    pub bytes: Vec<u64>,
}

/// What a new node has become.
#[derive(Debug)]
pub struct Member {
    pub credentials: Credentials,
    /// How many shards the cluster has.
    pub shards: u16,
    pub map: Map,
}

/// Asks the node at `address` to be let into its cluster. Who is let in is kept before this returns;
/// its devices are to be made then, and [`Home::has_joined`] called at last.
///
/// If the answer is lost, the same call with the same token, or with another one, gives the same node.
pub async fn join(
    home: &Home,
    address: SocketAddr,
    token: &JoinToken,
    newcomer: Newcomer,
    deadline: Instant,
) -> Result<Member, Error> {
    let Joining { key, devices } = home.joining(newcomer.bytes.len())?;
    let request = JoinRequest {
        token: token.id,
        secret: token.secret.clone(),
        public_key: key.public().to_vec(),
        addresses: newcomer.addresses,
        zone: newcomer.zone,
        devices: devices.into_iter().zip(newcomer.bytes).collect(),
    };
    let request = wire::encode(&request);
    let answer = match rpc::join(address, token.authority, request, deadline).await {
        Ok(answer) => answer,
        Err(CallError::Refused(why)) => {
            return Err(wire::decode::<Declined>(&why)
                .unwrap_or_else(|bad| bad)
                .into());
        }
        Err(source @ (CallError::NotSent(_) | CallError::Unknown(_))) => {
            return Err(Error::Unreachable { address, source });
        }
    };
    let welcome: Welcome = wire::decode(&answer)?;
    let malformed = |why: String| Error::Declined(Declined::Malformed(why));
    let map = Map::decode(&welcome.map).map_err(|bad| malformed(bad.to_string()))?;
    let credentials = key.certified(welcome.certificate, welcome.authority);
    let credentials = credentials.map_err(|bad| malformed(bad.to_string()))?;
    home.keep_map(&map)?;
    home.keep_credentials(&credentials)?;
    Ok(Member {
        credentials,
        shards: welcome.shards,
        map,
    })
}
