//! Where the other nodes are: addresses of the map, as [`rpc::Peers`] asks for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base::NodeId;
use map::Map;
use parking_lot::RwLock;

/// The socket addresses of all nodes. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<RwLock<HashMap<NodeId, SocketAddr>>>);

impl Directory {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, node: NodeId) -> Option<SocketAddr> {
        self.0.read().get(&node).copied()
    }

    /// Takes the addresses of a map. Names are looked up; what has no address now keeps the one it had.
    pub async fn learn(&self, map: &Map) {
        for (id, node) in &map.nodes {
            match find(&node.addresses).await {
                Some(address) => drop(self.0.write().insert(*id, address)),
                None if node.addresses.is_empty() => {}
                None => tracing::warn!(node = %id, addresses = ?node.addresses, "no address found"),
            }
        }
        self.0.write().retain(|id, _| map.nodes.contains_key(id));
    }
}

/// The first of them that is one.
async fn find(addresses: &[String]) -> Option<SocketAddr> {
    for address in addresses {
        if let Ok(address) = address.parse() {
            return Some(address);
        }
        if let Ok(mut found) = tokio::net::lookup_host(address.as_str()).await
            && let Some(address) = found.next()
        {
            return Some(address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use map::Node;

    use super::*;

    #[tokio::test]
    async fn the_first_address_that_is_one_counts() {
        let directory = Directory::new();
        let mut map = Map::default();
        let node = |addresses: &[&str]| Node {
            addresses: addresses.iter().map(|one| (*one).to_owned()).collect(),
            ..Node::default()
        };
        let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
        map.nodes.insert(one, node(&["no port", "10.0.0.1:7000"]));
        map.nodes
            .insert(two, node(&["10.0.0.2:7000", "10.0.0.1:7000"]));
        map.nodes.insert(three, node(&[]));
        directory.learn(&map).await;
        let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        assert_eq!(directory.get(one), at("10.0.0.1:7000"));
        assert_eq!(directory.get(two), at("10.0.0.2:7000"));
        assert_eq!(directory.get(three), None);
        // A node without an address keeps what it had; one that is gone is forgotten.
        map.nodes.insert(one, node(&["no port"]));
        map.nodes.remove(&two);
        directory.learn(&map).await;
        assert_eq!(directory.get(one), at("10.0.0.1:7000"));
        assert_eq!(directory.get(two), None);
    }
}
