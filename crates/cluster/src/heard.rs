//! When each node last reported to this one, whether this one led or not.
//!
//! Nodes report to all that may lead the control group, and only the leader answers. So who takes over knows already
//! who has been silent, and since when; else a node that died with the controller, or was it, would be called
//! *down* only a whole silence after the election.
//!
//! That somebody was not heard means something only if others were: this node may have been cut off, or have
//! stood still. Memory: 16 B for each node.

use std::collections::BTreeMap;
use std::time::Duration;

use base::NodeId;
use map::{Map, State};

#[derive(Default)]
pub(crate) struct Heard {
    last: BTreeMap<NodeId, Duration>,
    ticked: Duration,
}

impl Heard {
    pub(crate) fn hear(&mut self, node: NodeId, now: Duration) {
        self.last.insert(node, now);
    }

    /// Time passes. A process that stood still has not listened, and knows nothing.
    pub(crate) fn tick(&mut self, now: Duration, silence: Duration, map: &Map) {
        if now > self.ticked + silence / 2 {
            self.last.clear();
        }
        self.ticked = now;
        self.last.retain(|node, _| map.nodes.contains_key(node));
    }

    /// What this node, `own`, can say of the others if it takes over now: nothing, unless it has heard at least half
    /// of those that are up within half a silence.
    pub(crate) fn testimony(
        &self,
        now: Duration,
        silence: Duration,
        map: &Map,
        own: NodeId,
    ) -> BTreeMap<NodeId, Duration> {
        let mut others = self.last.clone();
        others.remove(&own);
        let is_up = |node: &NodeId| {
            map.nodes
                .get(node)
                .is_some_and(|one| one.state == State::Up)
        };
        let lately = others
            .iter()
            .filter(|(node, at)| is_up(node) && now < **at + silence / 2);
        let up = map.nodes.keys().filter(|node| **node != own && is_up(node));
        match lately.count() * 2 >= up.count() {
            true => others,
            false => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use map::Node;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(2);
    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    fn map() -> Map {
        let mut map = Map::default();
        for node in [ONE, TWO, THREE] {
            map.nodes.insert(node, Node::default());
        }
        map
    }

    fn at(secs: f64) -> Duration {
        Duration::from_secs_f64(1_000.0 + secs)
    }

    /// All have been heard at 0, the second again at 1.5.
    fn heard() -> Heard {
        let mut heard = Heard::default();
        heard.tick(at(0.0), SILENCE, &map());
        for node in [ONE, TWO, THREE] {
            heard.hear(node, at(0.0));
        }
        heard.tick(at(0.8), SILENCE, &map());
        heard.tick(at(1.5), SILENCE, &map());
        heard.hear(TWO, at(1.5));
        heard
    }

    #[test]
    fn who_takes_over_knows_since_when_others_are_silent() {
        let known = heard().testimony(at(1.6), SILENCE, &map(), ONE);
        assert_eq!(known, [(TWO, at(1.5)), (THREE, at(0.0))].into());
    }

    #[test]
    fn who_was_cut_off_knows_nothing() {
        let known = heard().testimony(at(2.5), SILENCE, &map(), ONE);
        assert_eq!(known, BTreeMap::new());
    }

    #[test]
    fn of_who_is_down_nobody_expects_to_hear() {
        let mut map = map();
        for number in 4..8 {
            let node = Node {
                state: State::Out,
                ..Node::default()
            };
            map.nodes.insert(NodeId(number), node);
        }
        let known = heard().testimony(at(1.6), SILENCE, &map, ONE);
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn who_stood_still_knows_nothing() {
        let mut heard = heard();
        heard.tick(at(2.6), SILENCE, &map());
        let known = heard.testimony(at(2.6), SILENCE, &map(), ONE);
        assert_eq!(known, BTreeMap::new());
        heard.hear(TWO, at(2.7));
        let known = heard.testimony(at(2.8), SILENCE, &map(), ONE);
        assert_eq!(known, [(TWO, at(2.7))].into());
    }

    #[test]
    fn who_has_left_the_cluster_is_forgotten() {
        let (mut heard, mut map) = (heard(), map());
        map.nodes.remove(&THREE);
        heard.tick(at(1.6), SILENCE, &map);
        let known = heard.testimony(at(1.6), SILENCE, &map, ONE);
        assert_eq!(known, [(TWO, at(1.5))].into());
    }
}
