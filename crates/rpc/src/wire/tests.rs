//! Frames over pipes in memory, in a time that passes as the test wants it.

use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::duplex;
use tokio::time::Instant;

use super::*;

const SILENCE: Duration = Duration::from_secs(2);

fn pulse() -> Arc<Pulse> {
    Arc::new(Pulse::new(SILENCE))
}

/// Reads frames until something is wrong with them; returns their ids and bodies.
async fn read_all<R: AsyncRead + Unpin>(from: R, body_max: usize) -> (Vec<(u64, Bytes)>, Fault) {
    let mut reader = FrameReader::new(from, pulse());
    let mut frames = Vec::new();
    loop {
        let next = async {
            let header = reader.header().await?;
            let bytes = header.body_within(body_max)?;
            Ok((header.id, reader.body(bytes).await?))
        };
        match next.await {
            Ok(frame) => frames.push(frame),
            Err(fault) => return (frames, fault),
        }
    }
}

fn call(id: u64, body: &[Bytes]) -> Header {
    Header::new(Kind::Call, id, fit(length(body)))
}

/// Takes so many bytes at a time, and counts how often.
struct Narrow {
    width: usize,
    writes: usize,
    written: Vec<u8>,
}

impl AsyncWrite for Narrow {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.written.len();
        let width = self.width;
        let bytes = pieces.iter().flat_map(|piece| piece.iter()).take(width);
        self.written.extend(bytes);
        self.writes += 1;
        Poll::Ready(Ok(self.written.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn narrow(width: usize) -> Narrow {
    Narrow {
        width,
        writes: 0,
        written: vec![],
    }
}

/// Writes all frames as one batch.
async fn write_batch(frames: &[Vec<Bytes>], to: &mut Narrow) {
    let pulse = pulse();
    let mut frames = Some(frames);
    let fill = |batch: &mut Batch| {
        for (id, body) in (1..).zip(frames.take().ok_or(Fault::Closed)?) {
            batch.push(call(id, body), body.clone());
        }
        Ok(())
    };
    let end = write(to, &pulse, fill).await;
    assert_eq!(end.unwrap_err(), Fault::Closed);
}

#[tokio::test]
async fn small_frames_share_a_write_and_large_bodies_are_not_copied() {
    let frames: Vec<_> = (0..60).map(|_| vec![Bytes::from(vec![7; 300])]).collect();
    let mut to = narrow(usize::MAX);
    write_batch(&frames, &mut to).await;
    assert_eq!((to.writes, to.written.len()), (1, 60 * 320));

    let large = Bytes::from(vec![7; 1 << 20]);
    let mut batch = Batch::default();
    batch.push(call(1, std::slice::from_ref(&large)), vec![large.clone()]);
    assert_eq!(batch.pieces[1].as_ptr(), large.as_ptr());
    assert!(batch.is_full());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

proptest! {
    #[test]
    fn frames_arrive_as_they_were_sent(
        frames in prop::collection::vec(prop::collection::vec(0..10_000_usize, 0..4), 1..20),
        width in 1..20_000_usize,
    ) {
        let body = |sizes: &Vec<usize>| -> Vec<Bytes> {
            sizes.iter().map(|size| vec![size.to_le_bytes()[0]; *size].into()).collect()
        };
        let frames: Vec<_> = frames.iter().map(body).collect();
        let mut to = narrow(width);
        runtime().block_on(write_batch(&frames, &mut to));
        let (read, fault) = runtime().block_on(read_all(&to.written[..], 1 << 20));
        prop_assert_eq!(fault, Fault::Stopping);
        let sent = frames.iter().map(|pieces| Bytes::from(pieces.concat()));
        prop_assert_eq!(read, (1..).zip(sent).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_frames_and_an_end(bytes: Vec<u8>, body_max in 0..1_000_usize) {
        let (read, _) = runtime().block_on(read_all(&bytes[..], body_max));
        let taken: usize = read.iter().map(|(_, body)| HEADER_BYTES + body.len()).sum();
        prop_assert!(taken <= bytes.len());
        prop_assert!(read.iter().all(|(_, body)| body.len() <= body_max));
    }
}

#[tokio::test]
async fn a_length_is_believed_only_within_the_bound() {
    let mut header = Header::new(Kind::Call, 1, 1_001).encode().to_vec();
    header.resize(2_000, 0);
    let (read, fault) = read_all(&header[..], 1_000).await;
    assert_eq!(read, []);
    let expected = BadFrame::TooLarge {
        bytes: 1_001,
        max: 1_000,
    };
    assert_eq!(fault, expected.into());
}

/// One end of a connection that has nothing to say.
async fn quiet(end: tokio::io::DuplexStream, pulse: Arc<Pulse>) -> Fault {
    let (from, mut to) = tokio::io::split(end);
    let mut reader = FrameReader::new(from, pulse.clone());
    let read = async {
        loop {
            match reader.header().await {
                Ok(header) => assert_eq!(header.kind, Kind::Alive),
                Err(fault) => return fault,
            }
        }
    };
    tokio::select! {
        fault = read => fault,
        Err(fault) = write(&mut to, &pulse, |_| Ok(())) => fault,
        fault = pulse.watch(|| Ok(())) => fault,
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_stays_open_until_one_end_is_dead() {
    let (near, far) = duplex(1 << 10);
    let near = tokio::spawn(quiet(near, pulse()));
    let far = quiet(far, pulse());
    let hours = tokio::time::timeout(Duration::from_secs(10_000), far);
    assert!(hours.await.is_err(), "it did not stay open");
    // The timeout has dropped the far end, which closes the pipe.
    assert!(matches!(
        near.await.unwrap(),
        Fault::Stopping | Fault::Broken(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_peer_is_found_in_time() {
    for start_ms in [0, 100, 249, 250, 251, 1_999] {
        let (near, mut far) = duplex(1 << 10);
        let near = tokio::spawn(quiet(near, pulse()));
        let mut last = Instant::now();
        let end = last + Duration::from_millis(start_ms);
        while Instant::now() < end {
            let header = Header::new(Kind::Alive, 0, 0).encode();
            far.write_all(&header).await.unwrap();
            last = Instant::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(near.await.unwrap(), Fault::Silent(SILENCE));
        assert!(last.elapsed() <= SILENCE, "{:?}", last.elapsed());
        assert!(last.elapsed() >= SILENCE * 3 / 4, "{:?}", last.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_takes_nobody_for_dead() {
    let pulse = pulse();
    let busy = pulse.deaf(tokio::time::sleep(SILENCE * 10));
    let watch = pulse.watch(|| Ok(()));
    tokio::select! {
        () = busy => {}
        fault = watch => panic!("{fault}"),
    }
}
