//! What the control leader makes of the reports: the next change of the map.
//!
//! Pure: time and reports come in, at most one [`Change`] at a time goes out. What it knows is nothing that
//! must be kept: who takes over begins with the map and what it has heard, and listens for a while to those of whom
//! it has heard nothing. Whether it still leads is for the
//! driver to prove (`reign`), and a change names the map that it was planned on and the reign that
//! planned it, so one of a deposed controller is refused.
//!
//! Memory: some 200 B for each node, device, shard and filling member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, NodeId};
use map::{Device, Epoch, Fill, Map, Observed, Step, next_steps};

use crate::control::DEVICES_MAX;
use crate::copying::Copying;
use crate::health::{self, Health, Now};
use crate::report::{Condition, DeviceReport, Report};

/// What happens to a controller.
#[derive(Debug)]
pub enum Event {
    /// Time passes, and this controller has proved a moment ago that it still leads.
    Tick,
    /// A node says how it is.
    Report(NodeId, Report),
    /// This is the map in the control shard.
    Map(Arc<Map>),
    /// A change was not made, and the map is as it was.
    Failed,
}

/// A change of the map that is to be made if it is still that of `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: Epoch,
    pub steps: Vec<Step>,
}

/// Turns what is into what should be, a change at a time.
pub struct Controller {
    map: Arc<Map>,
    nodes: Health<NodeId>,
    devices: Health<DeviceId>,
    /// The last that was said of each.
    reported: BTreeMap<DeviceId, DeviceReport>,
    addresses: BTreeMap<NodeId, Vec<String>>,
    /// Devices that nodes have got, as each said last.
    newcomers: BTreeMap<NodeId, Vec<DeviceReport>>,
    observed: Observed,
    copying: Copying,
    /// A change was given out and nothing was heard of it yet.
    is_changing: bool,
    silence: Duration,
    ticked: Duration,
}

impl Controller {
    /// A controller that begins now, with this map. `heard` says when nodes were last heard: of the others
    /// nothing is known.
    pub fn new(
        config: health::Config,
        map: Arc<Map>,
        heard: &BTreeMap<NodeId, Duration>,
        now: Now,
    ) -> Self {
        let mut controller = Self {
            map: Arc::default(),
            nodes: Health::new(config),
            devices: Health::new(config),
            reported: BTreeMap::new(),
            addresses: BTreeMap::new(),
            newcomers: BTreeMap::new(),
            observed: Observed::default(),
            copying: Copying::default(),
            is_changing: false,
            silence: config.silence,
            ticked: now.monotonic,
        };
        for (node, at) in heard {
            controller.nodes.hear(*node, *at);
        }
        controller.adopt(map, now);
        controller
    }

    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// How far the copying has come.
    pub fn copying(&self) -> &Copying {
        &self.copying
    }

    pub fn step(&mut self, now: Now, event: Event) -> Option<Change> {
        match event {
            Event::Tick => {
                self.listen(now);
                return self.change(now);
            }
            Event::Report(node, report) => {
                if self.map.nodes.contains_key(&node) {
                    self.take(now, node, report);
                }
            }
            Event::Map(map) => {
                self.is_changing = false;
                self.adopt(map, now);
            }
            Event::Failed => self.is_changing = false,
        }
        None
    }

    /// A process that stood still, or could not prove that it leads and so answered nobody, has not listened:
    /// that nothing was heard meanwhile says nothing.
    fn listen(&mut self, now: Now) {
        if now.monotonic > self.ticked + self.silence / 2 {
            self.nodes.listen(now.monotonic);
            self.devices.listen(now.monotonic);
        }
        self.ticked = now.monotonic;
    }

    fn take(&mut self, now: Now, node: NodeId, report: Report) {
        self.nodes.hear(node, now.monotonic);
        self.copying.take(now.monotonic, node, &report);
        self.addresses.insert(node, report.addresses);
        self.newcomers.remove(&node);
        for device in report.devices {
            let id = device.device;
            let known = self.map.devices.get(&id).map(|known| known.node);
            if known.is_none() && device.condition == Condition::New {
                self.newcomers.entry(node).or_default().push(device);
                continue;
            }
            // A device that was moved to another node by hand is not that one's before the map says so, and one that
            // was removed is nobody's.
            if known != Some(node) {
                continue;
            }
            match device.condition {
                Condition::Good | Condition::New => self.devices.hear(id, now.monotonic),
                Condition::Broken => self.devices.hear_broken(id, now.monotonic),
            }
            self.reported.insert(id, device);
        }
        for (shard, seen) in report.shards {
            // Reports overtake each other.
            let known = self.observed.shards.get(&shard);
            if known.is_none_or(|known| known.epoch <= seen.epoch) {
                self.observed.shards.insert(shard, seen);
            }
        }
        for filled in report.filled {
            let entry = (filled.group, filled.device, filled.since);
            if is_filling(&self.map, &entry) {
                self.observed.filled.insert(entry);
            }
        }
    }

    fn adopt(&mut self, map: Arc<Map>, now: Now) {
        if map.epoch <= self.map.epoch {
            return;
        }
        self.map = map;
        let map = &self.map;
        for id in map.nodes.keys() {
            self.nodes.notice(*id, now.monotonic);
        }
        for id in map.devices.keys() {
            self.devices.notice(*id, now.monotonic);
        }
        self.nodes.retain(|id| map.nodes.contains_key(id));
        self.devices.retain(|id| map.devices.contains_key(id));
        self.reported.retain(|id, _| map.devices.contains_key(id));
        self.addresses.retain(|id, _| map.nodes.contains_key(id));
        self.newcomers.retain(|id, _| map.nodes.contains_key(id));
        self.copying.retain(|id| map.nodes.contains_key(id));
        let filled = &mut self.observed.filled;
        filled.retain(|entry| is_filling(map, entry));
    }

    /// What is to be changed now. How the nodes are comes first: plans depend on it.
    fn change(&mut self, now: Now) -> Option<Change> {
        if self.is_changing {
            return None;
        }
        let mut steps = self.states(now);
        if steps.is_empty() {
            steps = next_steps(&self.map, &self.observed);
        }
        if steps.is_empty() {
            return None;
        }
        self.is_changing = true;
        Some(Change {
            from: self.map.epoch,
            steps,
        })
    }

    /// How nodes and devices are, as far as the map says something else.
    fn states(&mut self, now: Now) -> Vec<Step> {
        let map = self.map.clone();
        let mut steps = Vec::new();
        for (id, node) in &map.nodes {
            let state = self.nodes.judge(*id, node.state, now);
            if state != node.state {
                steps.push(Step::NodeState { node: *id, state });
            }
            if let Some(addresses) = self.addresses.get(id)
                && !addresses.is_empty()
                && *addresses != node.addresses
            {
                let addresses = addresses.clone();
                steps.push(Step::Address {
                    node: *id,
                    addresses,
                });
            }
        }
        steps.extend(self.newcomers());
        for (id, device) in &map.devices {
            // A device whose node is silent is as it was.
            if !self.nodes.is_silent(device.node, now.monotonic) {
                steps.extend(self.device(*id, device, now));
            }
        }
        steps
    }

    /// Devices that are to be in the map, as many as there may be of a node.
    fn newcomers(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (node, reported) in &self.newcomers {
            let known = self.map.devices.values().filter(|one| one.node == *node);
            let room = DEVICES_MAX.saturating_sub(known.count());
            let new = reported
                .iter()
                .filter(|one| !self.map.devices.contains_key(&one.device));
            steps.extend(new.take(room).map(|one| Step::Device {
                device: one.device,
                node: *node,
                bytes: one.bytes,
            }));
        }
        steps
    }

    fn device(&mut self, id: DeviceId, device: &Device, now: Now) -> impl Iterator<Item = Step> {
        let state = self.devices.judge(id, device.state, now);
        let changed = state != device.state;
        let state = changed.then_some(Step::DeviceState { device: id, state });
        let reported = self.reported.get(&id);
        let reported = reported.filter(|reported| is_worth_saying(device, reported));
        let space = reported.map(|reported| Step::Space {
            device: id,
            bytes: reported.bytes,
            bytes_free: reported.bytes_free,
        });
        state.into_iter().chain(space)
    }
}

/// Free space changes with each write, but only so much matters for placing.
fn is_worth_saying(known: &Device, reported: &DeviceReport) -> bool {
    let (before, after) = (known.bytes_free, reported.bytes_free);
    known.bytes != reported.bytes
        || before.abs_diff(after) > reported.bytes / 16
        || (before == 0) != (after == 0)
}

/// Whether this member is filling since then.
fn is_filling(map: &Map, (group, device, since): &(base::GroupId, DeviceId, Epoch)) -> bool {
    let fill = Fill::Filling { since: *since };
    let group = map.groups.get(group);
    let mut members = group.into_iter().flat_map(|group| &group.members);
    members.any(|member| member.device == *device && member.fill == fill)
}

#[cfg(test)]
mod tests;
