//! Finds any device of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use base::{DeviceId, NodeId};
use map::{Current, Epoch};
use parking_lot::RwLock;
use rpc::Peers;

use super::{Reach, RemoteDevice};
use crate::{Devices, Here, Storage};

/// All devices of the cluster: those here, and those that the map has on other nodes.
pub struct AllDevices {
    node: NodeId,
    here: Arc<Here>,
    reach: Reach,
    known: RwLock<Known>,
}

/// Remote devices that somebody asked for; at most those of the map.
#[derive(Default)]
struct Known {
    /// The map's, when the devices that had left it were forgotten last.
    epoch: Epoch,
    devices: HashMap<DeviceId, Arc<RemoteDevice>>,
}

impl AllDevices {
    /// As seen from `node`, whose own are `here`. `service` is the number under which all nodes answer
    /// with [`super::Server::serve`].
    pub fn new(node: NodeId, here: Arc<Here>, map: Current, peers: Peers, service: u16) -> Self {
        Self {
            node,
            here,
            reach: Reach {
                map,
                peers,
                service,
            },
            known: RwLock::default(),
        }
    }

    /// A device that this node does not have.
    fn remote(&self, id: DeviceId) -> Option<Arc<RemoteDevice>> {
        let map = self.reach.map.load();
        // One of this node that is not here could not be opened.
        if map.devices.get(&id)?.node == self.node {
            return None;
        }
        {
            let known = self.known.read();
            if known.epoch == map.epoch
                && let Some(device) = known.devices.get(&id)
            {
                return Some(device.clone());
            }
        }
        let mut known = self.known.write();
        if known.epoch < map.epoch {
            known.epoch = map.epoch;
            known.devices.retain(|id, _| map.devices.contains_key(id));
        }
        let new = || {
            let reach = self.reach.clone();
            Arc::new(RemoteDevice { id, reach })
        };
        Some(known.devices.entry(id).or_insert_with(new).clone())
    }
}

impl Devices for AllDevices {
    fn get(&self, id: DeviceId) -> Option<Arc<dyn Storage>> {
        match self.here.get(&id) {
            Some(device) => Some(device.clone()),
            None => Some(self.remote(id)?),
        }
    }

    fn is_here(&self, id: DeviceId) -> bool {
        self.here.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use base::NodeId;
    use map::Map;
    use rpc::{Authority, Config, NodeKey};

    use super::*;
    use crate::here;
    use crate::testing::MemoryDevice;

    const IDS: [DeviceId; 3] = [DeviceId(1), DeviceId(2), DeviceId(3)];

    fn peers() -> Peers {
        let authority = Authority::new(1).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.sign(NodeId(1), key.public()).unwrap();
        let credentials = key.certified(certificate, authority.certificate().to_vec());
        Peers::new(&credentials.unwrap(), Config::default(), |_| None).unwrap()
    }

    #[tokio::test]
    async fn a_device_is_found_as_long_as_it_is_in_the_map() {
        let mut map = Map::default().with_devices(IDS);
        map.devices.get_mut(&IDS[2]).unwrap().node = NodeId(2);
        let map = Current::new(map);
        let local = here([Arc::new(MemoryDevice::new(IDS[0])) as Arc<dyn Storage>]);
        let all = AllDevices::new(NodeId(1), local, map.clone(), peers(), 1);
        assert_eq!(IDS.map(|id| all.is_here(id)), [true, false, false]);
        // The second is this node's, and could not be opened.
        assert_eq!(IDS.map(|id| all.get(id).is_some()), [true, false, true]);
        let (first, again) = (all.remote(IDS[2]).unwrap(), all.remote(IDS[2]).unwrap());
        assert!(Arc::ptr_eq(&first, &again));

        let mut newer = (*map.get()).clone();
        newer.epoch = newer.epoch.next();
        newer.devices.remove(&IDS[2]);
        newer.devices.get_mut(&IDS[1]).unwrap().node = NodeId(2);
        map.advance(newer);
        assert_eq!(IDS.map(|id| all.get(id).is_some()), [true, true, false]);
        let known = all.known.read();
        assert_eq!(known.devices.keys().collect::<Vec<_>>(), [&IDS[1]]);
    }
}
