use std::sync::Arc;

use base::GroupId;
use base::env::Env;
use map::{Current, Epoch, Fill, Map, Policy};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, Devices as _, Here, PIECE_BYTES, Span, Storage, here};

const CODED: Policy = Policy::Coded { data: 4, parity: 2 };
const GROUP: GroupId = GroupId(7);

/// Six devices with a group of fragments, a group of whole copies on three of them, and a seventh device without any.
struct Fixture {
    devices: Vec<Arc<MemoryDevice>>,
    chunks: Chunks,
}

impl Fixture {
    fn new() -> Self {
        let ids: Vec<_> = (1..=7).map(DeviceId).collect();
        let mut map = Map::default().with_devices(ids.iter().copied());
        map.groups.clear();
        let coded = Group::new(CODED, map.epoch, &ids[..6], false);
        let copies = Group::new(Map::POLICY, map.epoch, &ids[..3], false);
        map.groups = [(GROUP, coded), (GroupId(8), copies)].into();
        let devices: Vec<_> = ids
            .into_iter()
            .map(MemoryDevice::new)
            .map(Arc::new)
            .collect();
        let storages = devices.iter().map(|one| one.clone() as Arc<dyn Storage>);
        let all: Arc<Here> = here(storages);
        assert!(all.is_here(DeviceId(7)));
        let chunks = Chunks::new(Env::real(), Current::new(map), all, &Config::default());
        Self { devices, chunks }
    }

    fn change(&self, change: impl FnOnce(&mut Map)) {
        let mut map = (*self.chunks.map().get()).clone();
        map.epoch = map.epoch.next();
        change(&mut map);
        self.chunks.map().advance(map);
    }

    async fn write(&self, body: &[u8]) -> Result<Vec<Chunk>, Error> {
        let mut writer = self.chunks.writer(label("o").owner, CODED);
        for piece in body.chunks(PIECE_BYTES) {
            writer.push(Bytes::copy_from_slice(piece)).await?;
        }
        writer.finish().await
    }

    async fn read(&self, chunk: Chunk, range: Range<u32>) -> Result<Vec<u8>, Error> {
        let mut reader = self.chunks.reader();
        reader.push(Span { chunk, range });
        let mut got = Vec::new();
        while let Some(piece) = reader.next().await {
            got.extend_from_slice(&piece?);
        }
        Ok(got)
    }

    /// Reads all of it, and some parts around the borders of fragments.
    async fn check(&self, chunk: Chunk, body: &[u8]) {
        let part = chunk.bytes / 4;
        let ranges = [
            0..chunk.bytes,
            0..1,
            part - 5..part + 5,
            part + 100..part + 200,
            chunk.bytes - 1..chunk.bytes,
        ];
        for range in ranges {
            let expected = &body[range.start as usize..range.end as usize];
            let got = self.read(chunk, range.clone()).await.unwrap();
            assert!(got == expected, "{range:?}");
        }
    }

    fn fail(&self, device: usize) {
        self.devices[device].fail_reads(Some(device::Error::damaged("rot")));
    }

    fn heal(&self) {
        self.devices
            .iter()
            .for_each(|device| device.fail_reads(None));
    }
}

fn body(bytes: usize) -> Vec<u8> {
    testkit::Random::new(bytes as u64).bytes(bytes)
}

#[tokio::test]
async fn a_chunk_is_cut_over_the_members_and_labelled() {
    let fixture = Fixture::new();
    let body = body(5 << 20);
    let chunks = fixture.write(&body).await.unwrap();
    assert_eq!(
        chunks.iter().map(|one| one.bytes).collect::<Vec<_>>(),
        [4 << 20, 1 << 20]
    );
    fixture.check(chunks[0], &body[..4 << 20]).await;
    fixture.check(chunks[1], &body[4 << 20..]).await;
    for (index, device) in (0..).zip(&fixture.devices[..6]) {
        let mut kept = device.chunks();
        kept.sort_by_key(|(_, label, _)| label.offset);
        let labels: Vec<_> = kept
            .iter()
            .map(|(id, label, _)| (*id, label.offset, label.is_last))
            .collect();
        assert_eq!(
            labels,
            [(chunks[0].id, 0, false), (chunks[1].id, 4 << 20, true)]
        );
        let fragment = kept[1].1.fragment.unwrap();
        let expected = (index, 4, 2, 1 << 20);
        assert_eq!(
            (
                fragment.index,
                fragment.data,
                fragment.parity,
                fragment.chunk_bytes
            ),
            expected
        );
        assert_eq!(
            kept.iter().map(|one| one.2).collect::<Vec<_>>(),
            [1 << 20, 1 << 18]
        );
    }
}

#[tokio::test]
async fn any_two_may_be_gone() {
    let fixture = Fixture::new();
    let body = body(1_000_003);
    let chunk = fixture.write(&body).await.unwrap()[0];
    for (one, other) in (0..6).flat_map(|one| (0..one).map(move |other| (one, other))) {
        fixture.fail(one);
        fixture.fail(other);
        fixture.check(chunk, &body).await;
        fixture.heal();
    }
    for device in [0, 3, 5] {
        fixture.fail(device);
    }
    let lost = fixture.read(chunk, 0..chunk.bytes).await;
    assert!(matches!(lost, Err(Error::Damaged(_))), "{lost:?}");
    // What is there is read all the same.
    assert!(fixture.read(chunk, 300_000..310_000).await.unwrap() == body[300_000..310_000]);
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_is_not_waited_for() {
    let fixture = Fixture::new();
    let body = body(600_000);
    let chunk = fixture.write(&body).await.unwrap()[0];
    fixture.devices[0].hang_reads();
    fixture.devices[4].hang_reads();
    assert!(fixture.read(chunk, 0..1000).await.unwrap() == body[..1000]);
    assert!(fixture.chunks.metrics().fragments_made.get() > 0);
    // If too few are left, it is waited for.
    fixture.fail(5);
    fixture.devices[4].fail_reads(Some(device::Error::damaged("rot")));
    let read = fixture.read(chunk, 0..1000);
    let release = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        fixture.devices[0].release();
        fixture.devices[4].release();
    };
    let (read, ()) = tokio::join!(read, release);
    assert!(read.unwrap() == body[..1000]);
}

#[tokio::test]
async fn what_is_too_small_or_has_no_place_is_kept_in_whole_copies() {
    let fixture = Fixture::new();
    let chunk = fixture.write(&body(100_000)).await.unwrap()[0];
    assert_eq!(chunk.id.group(), GroupId(8));
    let since = base::Timestamp::from_secs(1);
    fixture.change(|map| {
        map.devices.get_mut(&DeviceId(6)).unwrap().state = map::State::Down { since }
    });
    let body = body(1_000_000);
    let chunk = fixture.write(&body).await.unwrap()[0];
    assert_eq!(chunk.id.group(), GroupId(8));
    fixture.check(chunk, &body).await;
}

#[tokio::test]
async fn a_new_member_gets_its_own_fragment() {
    let fixture = Fixture::new();
    let body = body(3_000_000);
    let chunk = fixture.write(&body).await.unwrap()[0];
    // It had another one once.
    let old = fixture.devices[0].chunks().remove(0).1;
    fixture.devices[6].set(chunk.id, Some((old, Bytes::from_static(b"old"))));
    for (lost, index) in [(DeviceId(2), 1), (DeviceId(6), 5)] {
        fixture.change(|map| {
            let since = Epoch(map.epoch.0);
            let group = map.groups.get_mut(&GROUP).unwrap();
            group.members.retain(|member| member.device != lost);
            let device = DeviceId(7);
            let fill = Fill::Filling { since };
            group.members.push(Member {
                device,
                index,
                fill,
            });
            group.epoch = since;
        });
        let fenced: Vec<_> = (1..=6).map(DeviceId).collect();
        let filled = fixture
            .chunks
            .fill(GROUP, DeviceId(7), &fenced, |_| ())
            .await
            .unwrap();
        assert_eq!((filled.copied, filled.lost), (1, 0));
        let again = fixture
            .chunks
            .fill(GROUP, DeviceId(7), &fenced, |_| ())
            .await
            .unwrap();
        assert_eq!((again.present, again.copied), (1, 0));
        fixture.change(|map| {
            let group = map.groups.get_mut(&GROUP).unwrap();
            group
                .members
                .iter_mut()
                .for_each(|member| member.fill = Fill::Full);
        });
        // Of what the others have, just enough.
        fixture.fail(0);
        fixture.fail(if index == 1 { 5 } else { 3 });
        fixture.check(chunk, &body).await;
        fixture.heal();
        // The next one takes its place.
        fixture.change(|map| {
            let group = map.groups.get_mut(&GROUP).unwrap();
            let member = group
                .members
                .iter_mut()
                .find(|member| member.device == DeviceId(7));
            member.unwrap().device = lost;
        });
    }
}

#[tokio::test]
async fn a_fragment_that_is_bad_or_another_one_is_made_anew() {
    let fixture = Fixture::new();
    let body = body(2_000_000);
    let chunk = fixture.write(&body).await.unwrap()[0];
    fixture.devices[1].rot(chunk.id);
    let (_, other, _) = fixture.devices[3].chunks().remove(0);
    fixture.devices[2].set(chunk.id, Some((other, Bytes::from(vec![0; 503_808]))));
    fixture.check(chunk, &body).await;
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.chunks.metrics().copies_repaired.get(), 2);
    let made = fixture.chunks.metrics().fragments_made.get();
    fixture.check(chunk, &body).await;
    assert_eq!(fixture.chunks.metrics().fragments_made.get(), made);
}

#[tokio::test]
async fn a_write_that_one_member_refuses_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.devices[5].fail_writes(Some(device::Error::Full));
    let body = body(1_000_000);
    let chunk = fixture.write(&body).await.unwrap()[0];
    assert_eq!(chunk.id.group(), GroupId(8));
    fixture.chunks.settle().await;
    let kept = |device: &Arc<MemoryDevice>| device.chunks().len();
    let kept: Vec<_> = fixture.devices.iter().map(kept).collect();
    assert_eq!(kept, [1, 1, 1, 0, 0, 0, 0]);
}
