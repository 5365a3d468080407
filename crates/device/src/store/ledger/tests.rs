use super::*;

const LEN: u64 = 1 << 20;
const A: ChunkId = ChunkId(1);
const B: ChunkId = ChunkId(2);

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.add_new_segment(1, 0);
    ledger
}

fn reserve(ledger: &mut Ledger, segment: u64) -> Place {
    let payload_bytes = 5000;
    let bytes = super::super::record::record_bytes(payload_bytes);
    Place {
        segment,
        offset: ledger.reserve(segment, bytes, LEN).unwrap(),
        payload_bytes,
    }
}

fn write(ledger: &mut Ledger, segment: u64, id: ChunkId) -> Place {
    let place = reserve(ledger, segment);
    ledger.put(id, place, None);
    ledger.settle(&place);
    place
}

fn flush(ledger: &mut Ledger) -> Batch {
    let batch = ledger.freeze();
    ledger.flushed(&batch);
    batch
}

fn row(batch: &Batch, segment: u64) -> Option<SegmentRow> {
    let row = batch.segments.iter().find(|(number, _)| *number == segment);
    row.expect("the batch has a row").1
}

#[test]
fn what_was_put_is_known_until_the_index_knows_it() {
    let mut ledger = ledger();
    let place = write(&mut ledger, 1, A);
    assert_eq!(ledger.lookup(A), Known::At(place));
    let batch = ledger.freeze();
    assert_eq!(ledger.lookup(A), Known::At(place));
    assert_eq!(batch.chunks[&A].now, Some(place));
    ledger.flushed(&batch);
    assert_eq!(ledger.lookup(A), Known::AskIndex);
}

#[test]
fn the_index_mark_waits_for_writes_in_flight() {
    let mut ledger = ledger();
    let slow = reserve(&mut ledger, 1);
    let place = write(&mut ledger, 1, A);
    assert_eq!(row(&flush(&mut ledger), 1).unwrap().indexed_to, slow.offset);
    ledger.settle(&slow);
    write(&mut ledger, 1, B);
    let end = row(&flush(&mut ledger), 1).unwrap().indexed_to;
    assert!(end > place.end());
}

#[test]
fn a_deletion_behind_the_mark_waits_too() {
    let mut ledger = ledger();
    let slow = reserve(&mut ledger, 1);
    let place = write(&mut ledger, 1, A);
    ledger.delete(A, place);

    let batch = flush(&mut ledger);
    assert!(batch.held && batch.chunks.is_empty());
    assert_eq!(batch.deletions, 0);
    assert_eq!(ledger.lookup(A), Known::Deleted);

    ledger.settle(&slow);
    let batch = flush(&mut ledger);
    assert!(!batch.held);
    assert_eq!(batch.deletions, 1);
    assert_eq!(batch.chunks[&A].now, None);
    assert_eq!(batch.chunks[&A].freed, [place]);
    assert_eq!(row(&batch, 1).unwrap().indexed_to, place.end());
}

#[test]
fn a_failed_flush_loses_nothing_and_undoes_nothing() {
    let mut ledger = ledger();
    let (a, b) = (write(&mut ledger, 1, A), write(&mut ledger, 1, B));
    let batch = ledger.freeze();
    ledger.delete(A, a);
    ledger.thaw(batch);
    assert_eq!(ledger.lookup(A), Known::Deleted);
    assert_eq!(ledger.lookup(B), Known::At(b));
    let batch = flush(&mut ledger);
    assert_eq!(batch.chunks.len(), 2);
    assert_eq!(row(&batch, 1).unwrap().live_chunks, 1);
}

#[test]
fn a_sealed_segment_without_chunks_goes_in_three_steps() {
    let mut ledger = ledger();
    let place = write(&mut ledger, 1, A);
    ledger.delete(A, place);
    assert_eq!(
        flush(&mut ledger).doomed,
        [] as [u64; 0],
        "it may still grow"
    );
    ledger.seal(1);
    let batch = flush(&mut ledger);
    assert_eq!(batch.doomed, [1]);
    assert_eq!(row(&batch, 1).unwrap().stage, Stage::Doomed);
    // Not removed yet: tried again.
    assert_eq!(flush(&mut ledger).doomed, [1]);
    ledger.removed(1);
    let batch = flush(&mut ledger);
    assert_eq!(batch.doomed, [] as [u64; 0]);
    assert_eq!(row(&batch, 1), None);
    assert!(flush(&mut ledger).is_empty());
    assert!(ledger.segments().is_empty());
}

#[test]
fn a_move_counts_only_if_the_chunk_is_still_there() {
    let mut ledger = ledger();
    let from = write(&mut ledger, 1, A);
    ledger.seal(1);
    ledger.add_new_segment(2, 0);
    flush(&mut ledger);

    ledger.begin_move(A);
    let to = reserve(&mut ledger, 2);
    ledger.end_move(A, Some(from), from, to);
    ledger.settle(&to);
    assert_eq!(ledger.lookup(A), Known::At(to));
    let batch = flush(&mut ledger);
    assert_eq!(batch.chunks[&A].freed, [from]);
    assert_eq!(batch.doomed, [1]);
}

#[test]
fn a_chunk_deleted_during_its_move_stays_deleted() {
    let mut ledger = ledger();
    let from = write(&mut ledger, 1, A);
    ledger.seal(1);
    ledger.add_new_segment(2, 0);
    flush(&mut ledger);

    ledger.begin_move(A);
    let to = reserve(&mut ledger, 2);
    ledger.delete(A, from);
    let batch = flush(&mut ledger);
    assert!(
        batch.held && batch.chunks.is_empty(),
        "the copy may be found again"
    );
    assert_eq!(batch.doomed, [] as [u64; 0], "the index still points there");

    ledger.end_move(A, None, from, to);
    assert!(flush(&mut ledger).held, "the copy is still in flight");
    ledger.settle(&to);
    let batch = flush(&mut ledger);
    assert_eq!(batch.chunks[&A].now, None);
    assert_eq!(batch.chunks[&A].freed, [from, to]);
    assert_eq!(batch.doomed, [1]);
}

#[test]
fn a_second_copy_replaces_the_first() {
    let mut ledger = ledger();
    let first = write(&mut ledger, 1, A);
    let second = reserve(&mut ledger, 1);
    ledger.put(A, second, Some(first));
    ledger.settle(&second);
    let batch = flush(&mut ledger);
    assert_eq!(batch.chunks[&A].freed, [first]);
    assert_eq!(row(&batch, 1).unwrap().live_chunks, 1);
    assert_eq!(row(&batch, 1).unwrap().live_bytes, second.record_bytes());
}
