//! `martlet status`: what a running server holds and how it is doing, on one screen.

use std::fmt::Write as _;
use std::process::ExitCode;

use admin::api::{Device, Status};

use crate::cli::StatusArgs;
use crate::client::Client;
use crate::text::{bytes, count, counted, duration};

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    if args.json {
        let status: serde_json::Value = client.get("/admin/status")?;
        println!("{status}");
    } else {
        print!("{}", screen(&client.get("/admin/status")?));
    }
    Ok(ExitCode::SUCCESS)
}

fn screen(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a String takes all");
    };
    line(format_args!(
        "martlet {}, up {}",
        status.version,
        duration(status.uptime_s)
    ));
    line(format_args!(""));
    match &status.stored {
        Some(stored) => line(format_args!(
            "stored    {} in {}, {}, {}",
            bytes(stored.bytes),
            counted(stored.objects, "object"),
            counted(stored.containers, "container"),
            counted(stored.accounts, "account")
        )),
        None => line(format_args!("stored    UNKNOWN: not all shards answer")),
    }
    line(format_args!(
        "requests  {} in flight",
        count(status.requests_in_flight)
    ));
    line(format_args!("shards    {}", count(status.shards)));
    if let Some(garbage) = &status.garbage {
        line(format_args!(
            "garbage   {} deleted bodies ({}) and {} abandoned chunks to be removed",
            count(garbage.queued),
            bytes(garbage.queued_bytes),
            count(garbage.discards)
        ));
    }
    let bad: u64 = status.devices.iter().map(|device| device.bad_records).sum();
    match bad {
        0 => line(format_args!("damage    none known")),
        bad => line(format_args!(
            "damage    {} BAD RECORDS: see the log, and martlet check",
            count(bad)
        )),
    }
    for lost in status.lost.iter().take(LOST_SHOWN) {
        let object = match lost.object.as_str() {
            "" => "an unknown object",
            object => object,
        };
        line(format_args!("  LOST: {object}, chunk {}", lost.chunk));
    }
    if let Some(more) = status.lost.len().checked_sub(LOST_SHOWN + 1) {
        line(format_args!(
            "  and {} more: see --json",
            count(more as u64 + 1)
        ));
    }
    if let Some(cluster) = &status.cluster {
        text_of_cluster(cluster, &mut line);
    }
    for device in &status.devices {
        line(format_args!(""));
        text_of_device(device, &mut line);
    }
    text
}

fn text_of_cluster(cluster: &cluster::Status, line: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    let (shards, groups) = (cluster.shards_unsettled, cluster.groups_unsettled);
    match cluster.whole {
        true => line(format_args!(
            "cluster   whole: everything has all its copies"
        )),
        false => line(format_args!(
            "cluster   NOT WHOLE: {shards} of {} shards and {groups} of {} groups are being seen to",
            cluster.shards_total, cluster.groups_total
        )),
    }
    for one in cluster.unsettled.iter().take(UNSETTLED_SHOWN) {
        line(format_args!(
            "  {}: {} of {} copies, {}",
            one.what, one.copies, one.wanted, one.doing
        ));
    }
    if let Some(repair) = &cluster.repair {
        line(format_args!("repair    {}", repair_line(repair)));
    }
    line(format_args!(""));
    for node in &cluster.nodes {
        line(format_args!("{}", node_line(node)));
    }
}

/// Chunks that are lost; who has more does not want to know them one by one.
const LOST_SHOWN: usize = 8;

/// More would fill the screen and say the same.
const UNSETTLED_SHOWN: usize = 8;

fn repair_line(repair: &cluster::Repair) -> String {
    let what = format!(
        "{} to be made, about {}",
        counted_copies(repair.copies as u64),
        bytes(repair.bytes_left)
    );
    match repair.seconds_left() {
        None => what,
        Some(left) => format!(
            "{what}, at {}/s: some {} left",
            bytes(repair.bytes_per_second),
            duration(left)
        ),
    }
}

fn counted_copies(number: u64) -> String {
    match number {
        1 => "1 copy".to_owned(),
        number => format!("{} copies", count(number)),
    }
}

/// One node of a cluster, on one line.
pub(crate) fn node_line(node: &cluster::NodeStatus) -> String {
    let free: u64 = node.devices.iter().map(|device| device.bytes_free).sum();
    let total: u64 = node.devices.iter().map(|device| device.bytes).sum();
    let state = match node.state.as_str() {
        "up" => "up".to_owned(),
        other => other.to_uppercase(),
    };
    let draining = if node.draining { ", draining" } else { "" };
    let zone = match node.zone.as_str() {
        "" => String::new(),
        zone => format!(", zone {zone}"),
    };
    format!(
        "node {:<4} {state}{draining}{zone}, {} free of {} on {} devices, at {}",
        node.node,
        bytes(free),
        bytes(total),
        node.devices.len(),
        node.addresses.join(" "),
    )
}

fn text_of_device(device: &Device, line: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    let state = match device.state.as_str() {
        "healthy" => "healthy".to_owned(),
        other => format!("{}: {}", other.to_uppercase(), device.reason),
    };
    line(format_args!(
        "device    {}  ({})",
        device.directory, device.id
    ));
    line(format_args!("  state   {state}"));
    let full = if device.free_bytes < device.reserve_bytes {
        ", FULL: bodies are refused"
    } else {
        ""
    };
    line(format_args!(
        "  space   {} free of {}, {} kept in reserve{full}",
        bytes(device.free_bytes),
        bytes(device.total_bytes),
        bytes(device.reserve_bytes)
    ));
    line(format_args!(
        "  chunks  {}: {} live, {} to be won back",
        count(device.chunks),
        bytes(device.live_bytes),
        bytes(device.dead_bytes)
    ));
    line(format_args!(
        "  scrub   {} read since the start",
        bytes(device.scrubbed_bytes)
    ));
}

#[cfg(test)]
mod tests {
    use admin::api::{Garbage, LostChunk, Stored};

    use super::*;

    #[test]
    fn a_repair_is_told_with_its_time() {
        let mut repair = cluster::Repair {
            copies: 1,
            bytes_left: 3 << 30,
            bytes_per_second: 0,
        };
        assert_eq!(repair_line(&repair), "1 copy to be made, about 3.0 GiB");
        (repair.copies, repair.bytes_per_second) = (1200, 10 << 20);
        assert_eq!(
            repair_line(&repair),
            "1,200 copies to be made, about 3.0 GiB, at 10.0 MiB/s: some 5 min left"
        );
    }

    fn lost(object: &str, chunk: &str) -> LostChunk {
        LostChunk {
            object: object.to_owned(),
            chunk: chunk.to_owned(),
            device: "d1".to_owned(),
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        let healthy = Device {
            id: "d1".to_owned(),
            directory: "/disk1".to_owned(),
            state: "healthy".to_owned(),
            total_bytes: 100 << 30,
            free_bytes: 40 << 30,
            reserve_bytes: 4 << 30,
            chunks: 1234,
            live_bytes: 50 << 30,
            dead_bytes: 1 << 30,
            ..Device::default()
        };
        let broken = Device {
            state: "failed".to_owned(),
            reason: "syncing segment 3: EIO".to_owned(),
            free_bytes: 1 << 30,
            bad_records: 2,
            ..healthy.clone()
        };
        let status = Status {
            version: "0.1.0".to_owned(),
            uptime_s: 90_061,
            stored: Some(Stored {
                accounts: 2,
                containers: 3,
                objects: 1_234_567,
                bytes: 50 << 30,
            }),
            devices: vec![healthy, broken],
            shards: 16,
            garbage: Some(Garbage {
                queued: 5,
                queued_bytes: 3 << 20,
                discards: 0,
            }),
            requests_in_flight: 7,
            lost: vec![lost("main/c/o", "c1"), lost("", "c2")],
            cluster: None,
        };
        assert_eq!(
            screen(&status),
            "martlet 0.1.0, up 1 d 1 h\n\
             \n\
             stored    50.0 GiB in 1,234,567 objects, 3 containers, 2 accounts\n\
             requests  7 in flight\n\
             shards    16\n\
             garbage   5 deleted bodies (3.0 MiB) and 0 abandoned chunks to be removed\n\
             damage    2 BAD RECORDS: see the log, and martlet check\n  \
               LOST: main/c/o, chunk c1\n  \
               LOST: an unknown object, chunk c2\n\
             \n\
             device    /disk1  (d1)\n  \
               state   healthy\n  \
               space   40.0 GiB free of 100.0 GiB, 4.0 GiB kept in reserve\n  \
               chunks  1,234: 50.0 GiB live, 1.0 GiB to be won back\n  \
               scrub   0 B read since the start\n\
             \n\
             device    /disk1  (d1)\n  \
               state   FAILED: syncing segment 3: EIO\n  \
               space   1.0 GiB free of 100.0 GiB, 4.0 GiB kept in reserve, FULL: bodies are refused\n  \
               chunks  1,234: 50.0 GiB live, 1.0 GiB to be won back\n  \
               scrub   0 B read since the start\n"
        );
    }

    #[test]
    fn what_no_shard_tells_is_said_to_be_unknown() {
        let status = Status {
            version: "0.1.0".to_owned(),
            ..Status::default()
        };
        assert_eq!(
            screen(&status),
            "martlet 0.1.0, up 0 s\n\
             \n\
             stored    UNKNOWN: not all shards answer\n\
             requests  0 in flight\n\
             shards    0\n\
             damage    none known\n"
        );
    }
}
