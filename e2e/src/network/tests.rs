//! The network itself: packets arrive, or do not, as the links say.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::*;

/// A network with a socket on each of two hosts; nothing where that is not possible.
fn two_hosts() -> Option<(Network, UdpSocket, UdpSocket)> {
    if !crate::may_skip(is_possible(), "needs root and /dev/net/tun") {
        return None;
    }
    let mut network = Network::new(1).unwrap();
    let sockets: Vec<UdpSocket> = (0..2)
        .map(|host| {
            assert_eq!(network.add_host().unwrap(), host);
            let bind = || UdpSocket::bind((address(host), PORT));
            network.namespace(host).within(bind).unwrap()
        })
        .collect();
    let [one, other] = sockets.try_into().expect("two");
    Some((network, one, other))
}

const PORT: u16 = 1000;

/// Whether a packet that is sent to the host of the second socket gets there.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    /// Longer than any packet waits in these tests.
    const PATIENCE: Duration = Duration::from_millis(200);
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    to.recv(&mut [0; 100]).is_ok()
}

#[test]
fn a_cut_is_one_way_and_heals() {
    let Some((network, one, other)) = two_hosts() else {
        return;
    };
    assert!(arrives(&one, &other) && arrives(&other, &one));
    network.set(0, 1, Link::CUT);
    assert!(!arrives(&one, &other));
    assert!(arrives(&other, &one));
    network.heal();
    assert!(arrives(&one, &other));
}

#[test]
fn a_delayed_packet_arrives_later() {
    let Some((network, one, other)) = two_hosts() else {
        return;
    };
    let delay = Duration::from_millis(50);
    let link = Link {
        delay,
        ..Link::default()
    };
    network.set(0, 1, link);
    let start = Instant::now();
    assert!(arrives(&one, &other));
    assert!(start.elapsed() >= delay);
}

#[test]
fn streams_pass_whole_over_a_bad_link() {
    let Some((network, ..)) = two_hosts() else {
        return;
    };
    let link = Link {
        lost: 2,
        jitter: Duration::from_millis(2),
        ..Link::default()
    };
    network.set(0, 1, link);
    network.set(1, 0, link);
    let listen = || TcpListener::bind((address(1), PORT));
    let listener = network.namespace(1).within(listen).unwrap();
    let mut sent = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut sent);
    let patience = Duration::from_secs(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let to = (address(1), PORT).into();
            let mut stream = network.namespace(0).connect(to, patience).unwrap();
            stream.write_all(&sent).unwrap();
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent);
    });
}

#[test]
fn two_networks_with_the_same_addresses_do_not_meet() {
    let (Some((_first, one, _)), Some((_second, _, other))) = (two_hosts(), two_hosts()) else {
        return;
    };
    assert!(!arrives(&one, &other));
}

#[test]
fn packets_of_other_kinds_go_nowhere() {
    let mut packet = [0; 20];
    packet[0] = 0x45;
    packet[16..].copy_from_slice(&[10, 0, 0, 3]);
    assert_eq!(destination(&packet), Some(2));
    packet[18] = 1;
    assert_eq!(destination(&packet), None);
    packet[16..].copy_from_slice(&[10, 0, 0, 0]);
    assert_eq!(destination(&packet), None);
    packet[0] = 0x60;
    assert_eq!(destination(&packet), None);
    assert_eq!(destination(&packet[..19]), None);
    assert_eq!(destination(&[]), None);
}
