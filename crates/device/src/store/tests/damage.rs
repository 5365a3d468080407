//! What is on the disk is not what was written.

use super::*;

/// A device with three chunks of 300,000 bytes in its first segment, and where the second lies.
async fn three(seed: u64) -> (World, Device, u64) {
    let world = World::new(seed, 320 * MIB);
    let device = world.open();
    for id in 1..=3 {
        write(&device, id, 300_000).await.unwrap();
    }
    let place = device.store().shared.find(chunk(2)).unwrap().unwrap();
    (world, device, place.offset)
}

async fn check_good(device: &Device, id: u64) {
    assert!(
        read(device, id, 300_000).await.unwrap() == payload(id, 300_000),
        "chunk {id}"
    );
}

#[tokio::test]
async fn a_flipped_bit_is_never_returned() {
    let (world, device, offset) = three(1).await;
    let header = record::HEADER_BYTES as u64;
    let fields = [0, 8, 16, 32, 40, 48, 56, 64, 70, 200, 1000, 4088];
    let frames = [0, 1, 131_071, 131_072, 262_144, 299_999].map(|at| header + at);
    for at in fields.into_iter().chain(frames) {
        world.disk.flip(&world.segment(1), offset + at, &[1]);
        let read = read(&device, 2, 300_000).await;
        assert!(matches!(read, Err(Error::Damaged(_))), "at {at}: {read:?}");
        check_good(&device, 1).await;
        check_good(&device, 3).await;
        world.disk.flip(&world.segment(1), offset + at, &[1]);
        check_good(&device, 2).await;
    }
    assert_eq!(device.health().state(), State::Healthy);
    assert_eq!(
        device.store().bad_records().len(),
        1,
        "one chunk, told once"
    );
}

#[tokio::test]
async fn only_the_frames_of_a_range_need_be_good() {
    let (world, device, offset) = three(2).await;
    let second_frame = offset + 4096 + FRAME_BYTES as u64;
    world
        .disk
        .flip(&world.segment(1), second_frame + 5, &[0x80]);
    let whole = payload(2, 300_000);
    for (start, end, good) in [
        (0, FRAME_BYTES, true),
        (0, FRAME_BYTES + 1, false),
        (FRAME_BYTES + 100, FRAME_BYTES + 101, false),
        (2 * FRAME_BYTES, 300_000, true),
    ] {
        let read = device.store().read(chunk(2), None, range(start, end)).await;
        match good {
            true => assert!(read.unwrap() == whole[start..end]),
            false => assert!(matches!(read, Err(Error::Damaged(_)))),
        }
    }
}

#[tokio::test]
async fn recovery_finds_what_lies_behind_a_damaged_header() {
    let (world, device, offset) = three(3).await;
    drop(device);
    world.disk.flip(&world.segment(1), offset + 32, &[1]);
    std::fs::remove_dir_all(world.path("index")).unwrap();
    let device = world.open();
    check_good(&device, 1).await;
    check_good(&device, 3).await;
    let lost = read(&device, 2, 300_000).await;
    assert!(matches!(lost, Err(Error::NotFound)), "{lost:?}");
}

#[tokio::test]
async fn a_damaged_index_is_made_again() {
    let (world, device, _) = three(4).await;
    device.close().await.unwrap();
    drop(device);
    let path = world.path("index").join("data.mdb");
    let len = std::fs::metadata(&path).unwrap().len();
    let garbage = Random::new(1).bytes(usize::try_from(len).unwrap());
    #[expect(clippy::disallowed_methods, reason = "the index is a real file")]
    std::fs::write(&path, garbage).unwrap();
    let device = world.open();
    for id in 1..=3 {
        check_good(&device, id).await;
    }
}

/// LMDB takes the bounds of its pages as they are, and would write beyond them.
#[tokio::test]
async fn an_index_with_a_damaged_page_is_not_written_to() {
    const PAGE_BYTES: usize = 4096;
    const BOUNDS_AT: usize = 12;
    let (world, device, _) = three(7).await;
    device.close().await.unwrap();
    drop(device);
    let path = world.path("index").join("data.mdb");
    for number in 0..64_usize {
        let mut bytes = std::fs::read(&path).unwrap();
        let pages = bytes.len() / PAGE_BYTES;
        // Each page in turn, and each bit of its bounds.
        let at = (number % pages) * PAGE_BYTES + BOUNDS_AT;
        let bit = number / pages % 32;
        bytes[at + bit / 8] ^= 1 << (bit % 8);
        #[expect(clippy::disallowed_methods, reason = "the index is a real file")]
        std::fs::write(&path, bytes).unwrap();
        let device = world.open();
        for id in 1..=3 {
            check_good(&device, id).await;
        }
        write(&device, 100 + number as u64, 1000).await.unwrap();
        device.close().await.unwrap();
    }
}

#[tokio::test]
async fn either_head_of_a_segment_will_do() {
    let (world, device, _) = three(5).await;
    drop(device);
    std::fs::remove_dir_all(world.path("index")).unwrap();
    world.disk.flip(&world.segment(1), 33, &[1]);
    let device = world.open();
    for id in 1..=3 {
        check_good(&device, id).await;
    }
    drop(device);
    // The index knows the salt as well.
    world.disk.flip(&world.segment(1), 4096 + 33, &[1]);
    let device = world.open();
    check_good(&device, 1).await;
}

#[tokio::test]
async fn a_segment_without_any_head_is_left_alone() {
    let (world, device, _) = three(6).await;
    drop(device);
    std::fs::remove_dir_all(world.path("index")).unwrap();
    for at in [33, 4096 + 33] {
        world.disk.flip(&world.segment(1), at, &[1]);
    }
    let device = world.open();
    let read = read(&device, 1, 300_000).await;
    assert!(matches!(read, Err(Error::NotFound)));
    write(&device, 4, 1000).await.unwrap();
    drop(device);
    for at in [33, 4096 + 33] {
        world.disk.flip(&world.segment(1), at, &[1]);
    }
    let device = world.open();
    check_good(&device, 1).await;
    assert!(super::read(&device, 4, 1000).await.is_ok());
}

#[tokio::test]
async fn a_missing_segment_is_an_error_of_its_chunks_only() {
    let (world, device, _) = three(7).await;
    device.close().await.unwrap();
    drop(device);
    world.env.disk.remove(&world.segment(1)).unwrap();
    let device = world.open();
    let read = read(&device, 1, 300_000).await;
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
    write(&device, 4, 1000).await.unwrap();
    assert!(super::read(&device, 4, 1000).await.is_ok());
}

#[tokio::test]
async fn a_record_in_the_wrong_place_is_not_taken_for_another() {
    let (world, device, offset) = three(8).await;
    // The disk wrote the third chunk's record over the second's as well.
    let file = world
        .env
        .disk
        .open(&world.segment(1), base::env::Open::Read)
        .unwrap();
    let third = device.store().shared.find(chunk(3)).unwrap().unwrap();
    let mut here = vec![0; 310_000];
    let mut there = vec![0; 310_000];
    file.read_at(&mut here, offset).unwrap();
    file.read_at(&mut there, third.offset).unwrap();
    let difference: Vec<u8> = here.iter().zip(&there).map(|(a, b)| a ^ b).collect();
    world
        .disk
        .flip(&world.segment(1), offset, &difference[..303_104]);
    let read = read(&device, 2, 300_000).await;
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
    check_good(&device, 3).await;
}

#[tokio::test]
async fn a_forged_record_inside_a_payload_is_not_found() {
    let world = World::new(9, 320 * MIB);
    let device = world.open();
    write(&device, 1, 5000).await.unwrap();
    let file = world
        .env
        .disk
        .open(&world.segment(1), base::env::Open::Read)
        .unwrap();
    // A client that could even see a whole record sends it as a body.
    let mut record = vec![0; 12_288];
    file.read_at(&mut record, segment::RECORDS_AT).unwrap();
    let body = [record.clone(), record].concat();
    let body = [Bytes::from(body)];
    device
        .store()
        .write(chunk(2), &owner("evil").into(), &body)
        .await
        .unwrap();
    device.store().delete(&[chunk(1)]).await.unwrap();
    drop(device);
    std::fs::remove_dir_all(world.path("index")).unwrap();
    // Its own header is gone, so that recovery has to look inside.
    world
        .disk
        .flip(&world.segment(1), segment::RECORDS_AT + 12_288, &[1]);
    world
        .disk
        .flip(&world.segment(1), segment::RECORDS_AT, &[1]);
    let device = world.open();
    assert_eq!(device.store().usage().chunks, 0);
}
