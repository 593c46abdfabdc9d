use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

type Row = (Fingerprint, Entry);

fn fingerprint(high: u64, low: u64) -> Fingerprint {
    (u128::from(high) << 64) | u128::from(low)
}

fn entry(time_ms: i64, offset: i64, ordinal: u64) -> Entry {
    Entry {
        time_ms,
        offset,
        ordinal,
        payload: 0,
    }
}

fn damage<T>(result: Result<T, ChunkError>) -> &'static str {
    match result.err() {
        Some(ChunkError::Damaged(what)) => what,
        other => panic!("expected damage but got {other:?}"),
    }
}

fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_64(&body);
    body.extend_from_slice(&checksum.to_le_bytes());
    body
}

/// A slice as it is sealed in production: hashed ids, admitted one after another over a while.
fn slice(count: u32, lasting_ms: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = (0..count)
        .map(|nth| {
            let time_ms = 1_790_000_000_000 + u64::from(nth) * lasting_ms / u64::from(count);
            let ordinal = 5_000_000_000 + u64::from(nth);
            let offset = 7_000_000_000 + i64::from(nth);
            let id = xxh3_128(&nth.to_le_bytes());
            (id, entry(time_ms.cast_signed(), offset, ordinal))
        })
        .collect();
    rows.sort_unstable_by_key(|row| row.0);
    rows
}

/// Calls everything there is to call, with fingerprints that lie anywhere.
fn use_every_method(bytes: &[u8], wanted: &[Fingerprint]) {
    let Ok(chunk) = Chunk::open(bytes) else {
        return;
    };
    let listed: Vec<Fingerprint> = chunk.fingerprints().collect();
    assert_eq!(listed.len(), chunk.len());
    assert_eq!(chunk.is_empty(), listed.is_empty());
    assert!(chunk.entries().map(|row| row.0).eq(listed.iter().copied()));
    for id in listed.iter().chain(wanted) {
        let found = chunk.get(*id);
        assert!(found.is_none() || listed.contains(id));
    }
}

/// Halves from few values, so that fingerprints often share one.
fn any_half() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..4_u64, Just(u64::MAX), Just(1 << 63)]
}

fn any_fingerprint() -> impl Strategy<Value = Fingerprint> {
    (any_half(), any_half()).prop_map(|(high, low)| fingerprint(high, low))
}

fn any_signed() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -3..3_i64, Just(i64::MIN), Just(i64::MAX)]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (any_signed(), any_signed(), any_half())
        .prop_map(|(time, offset, ordinal)| entry(time, offset, ordinal))
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let payloads = prop_oneof![Just(0), any::<u64>()];
    (btree_map(any_fingerprint(), any_entry(), 0..100), payloads).prop_map(|(rows, payload)| {
        let row = |(id, entry): (Fingerprint, Entry)| {
            let payload = payload & entry.ordinal;
            (id, Entry { payload, ..entry })
        };
        rows.into_iter().map(row).collect()
    })
}

proptest! {
    #[test]
    fn what_is_packed_is_found_and_comes_back_entry_by_entry(rows in any_rows()) {
        let chunk = Chunk::open(pack(&rows)).unwrap();
        prop_assert_eq!(chunk.len(), rows.len());
        prop_assert_eq!(chunk.is_empty(), rows.is_empty());
        prop_assert!(chunk.entries().eq(rows.iter().copied()));
        prop_assert!(chunk.fingerprints().eq(rows.iter().map(|row| row.0)));
        for (id, packed) in rows {
            prop_assert_eq!(chunk.get(id), Some(packed));
        }
    }

    #[test]
    fn a_fingerprint_that_was_not_packed_is_not_found(
        rows in any_rows(),
        absent in vec(any_fingerprint(), 1..50),
    ) {
        let chunk = Chunk::open(pack(&rows)).unwrap();
        let neighbours = rows
            .iter()
            .flat_map(|row| [row.0.wrapping_sub(1), row.0.wrapping_add(1)]);
        for id in neighbours.chain(absent) {
            let packed = rows.binary_search_by_key(&id, |row| row.0).ok().map(|at| rows[at].1);
            prop_assert_eq!(chunk.get(id), packed);
        }
    }

    #[test]
    fn a_flipped_bit_in_any_chunk_is_noticed(
        rows in any_rows(),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut bytes = pack(&rows);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Chunk::open(bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert!(Chunk::open(bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_behind_a_right_beginning_are_refused(
        bytes in vec(any::<u8>(), 0..2000),
    ) {
        let bytes = [&b"KDC\x01"[..], &bytes].concat();
        prop_assert!(Chunk::open(bytes).is_err());
    }

    #[test]
    fn an_arbitrary_body_with_a_right_checksum_does_no_harm(
        fields in vec(any::<u8>(), 0..400),
        wanted in vec(any_fingerprint(), 1..20),
    ) {
        use_every_method(&seal([&b"KDC\x01"[..], &fields].concat()), &wanted);
    }

    #[test]
    fn arbitrary_columns_of_a_right_length_and_checksum_do_no_harm(
        widths in prop::array::uniform4(0..=64_u8),
        count in 0..200_u32,
        bases in prop::array::uniform4(any_half()),
        filling in vec(any::<u8>(), 1..100),
        wanted in vec(any_fingerprint(), 1..20),
    ) {
        let rows = usize::try_from(count).unwrap();
        let packed: usize = widths
            .iter()
            .map(|width| (rows * usize::from(*width)).div_ceil(8))
            .sum();
        let mut body = b"KDC\x01".to_vec();
        body.extend(widths);
        body.extend(count.to_le_bytes());
        body.extend(bases.iter().flat_map(|base| base.to_le_bytes()));
        body.extend(filling.iter().cycle().take(packed + rows * 8));
        let bytes = seal(body);
        prop_assert_eq!(Chunk::open(&bytes).map(|chunk| chunk.len()), Ok(rows));
        use_every_method(&bytes, &wanted);
    }

    #[test]
    fn a_header_that_lies_about_a_good_chunk_does_no_harm(
        rows in any_rows(),
        at in 4..44_usize,
        lie in any::<u8>(),
    ) {
        let mut body = pack(&rows);
        body.truncate(body.len() - 8);
        body[at] = lie;
        use_every_method(&seal(body), &[0, u128::MAX]);
    }

    #[test]
    fn greater_fingerprints_are_never_in_earlier_chunks(
        one in any::<u128>(),
        other in any::<u128>(),
        chunks in 1..=u32::MAX,
    ) {
        let (less, more) = (one.min(other), one.max(other));
        prop_assert!(chunk_of(less, chunks) <= chunk_of(more, chunks));
        prop_assert!(chunk_of(more, chunks) < chunks);
    }
}

#[test]
fn the_bytes_are_those_of_the_documented_format() {
    let rows = [
        (fingerprint(10, 0xAA), entry(-5, 100, 7)),
        (fingerprint(10, 0xBB), entry(-4, 100, 9)),
        (fingerprint(13, 0xCC), entry(-2, 115, 8)),
    ];
    let mut body = b"KDC\x01\x02\x02\x04\x02\x03\0\0\0".to_vec();
    body.extend(10_u64.to_le_bytes());
    body.extend((-5_i64).to_le_bytes());
    body.extend(100_i64.to_le_bytes());
    body.extend(7_u64.to_le_bytes());
    body.push(0b11_00_00);
    body.push(0b11_01_00);
    body.extend([0b0000_0000, 0b1111]);
    body.push(0b01_10_00);
    body.extend(
        [0xAA_u64, 0xBB, 0xCC]
            .iter()
            .flat_map(|low| low.to_le_bytes()),
    );
    assert_eq!(pack(&rows), seal(body));
}

#[test]
fn nothing_packed_is_an_empty_chunk() {
    let bytes = pack(&[]);
    assert_eq!(bytes.len(), 52);
    let chunk = Chunk::open(bytes).unwrap();
    assert!(chunk.is_empty());
    assert_eq!(chunk.len(), 0);
    assert_eq!(chunk.get(0), None);
    assert_eq!(chunk.fingerprints().count(), 0);
    assert_eq!(chunk.entries().count(), 0);
}

#[test]
fn a_single_entry_needs_no_packed_bits() {
    let only = (fingerprint(3, 4), entry(5, 6, 7));
    let bytes = pack(&[only]);
    assert_eq!(bytes.len(), 60);
    let chunk = Chunk::open(bytes).unwrap();
    assert_eq!(chunk.get(only.0), Some(only.1));
    assert!(chunk.entries().eq([only]));
}

#[test]
fn extreme_values_come_back() {
    let rows = [
        (0, entry(i64::MAX, i64::MIN, 0)),
        (fingerprint(1 << 63, u64::MAX), entry(-1, 0, 1 << 63)),
        (u128::MAX - 1, entry(0, -1, 1)),
        (u128::MAX, entry(i64::MIN, i64::MAX, u64::MAX)),
    ];
    let chunk = Chunk::open(pack(&rows)).unwrap();
    assert!(chunk.entries().eq(rows));
    for (id, packed) in rows {
        assert_eq!(chunk.get(id), Some(packed));
    }
    assert_eq!(chunk.get(1), None);
    assert_eq!(chunk.get(u128::MAX - 2), None);
}

#[test]
fn an_equal_high_half_alone_is_not_enough() {
    let rows: Vec<Row> = (0..500_u64)
        .map(|nth| (fingerprint(42, nth * 2 + 1), entry(1, 2, nth)))
        .collect();
    let chunk = Chunk::open(pack(&rows)).unwrap();
    for (nth, (id, packed)) in rows.iter().enumerate() {
        assert_eq!(chunk.get(*id), Some(*packed), "entry {nth}");
        assert_eq!(chunk.get(*id - 1), None);
        assert_eq!(chunk.get(*id + 1), None);
    }
}

#[test]
fn hostile_ids_that_all_fall_into_one_chunk_are_kept() {
    let rows: Vec<Row> = (0..100_000_u32)
        .map(|nth| (fingerprint(9, u64::from(nth)), entry(i64::from(nth), 0, 0)))
        .collect();
    let chunk = Chunk::open(pack(&rows)).unwrap();
    assert_eq!(chunk.len(), rows.len());
    assert!(chunk.entries().eq(rows.iter().copied()));
    assert_eq!(chunk.get(fingerprint(9, 77_777)), Some(entry(77_777, 0, 0)));
    assert_eq!(chunk.get(fingerprint(9, 100_000)), None);
}

#[test]
fn every_single_flipped_bit_is_noticed() {
    // This is long enough for the checksum to go through all its stages.
    let good = pack(&slice(60, 60_000));
    assert!(good.len() > 1024);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Chunk::open(bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn a_chunk_cut_off_or_lengthened_anywhere_is_noticed() {
    let good = pack(&slice(128, 60_000));
    for len in 0..good.len() {
        assert!(Chunk::open(&good[..len]).is_err(), "{len} bytes");
    }
    for len in 0..good.len() - 8 {
        let sealed_again = seal(good[..len].to_vec());
        assert!(Chunk::open(sealed_again).is_err(), "{len} bytes");
    }
    assert!(Chunk::open([&good[..], &[0]].concat()).is_err());
    assert!(Chunk::open([&[0], &good[..]].concat()).is_err());
}

#[test]
fn each_refusal_says_what_is_wrong() {
    let good = pack(&slice(10, 60_000));
    let with = |at: usize, byte: u8| {
        let mut body = good[..good.len() - 8].to_vec();
        body[at] = byte;
        Chunk::open(seal(body))
    };
    assert_eq!(damage(Chunk::open([0; 7])), "it is shorter than a checksum");
    assert_eq!(
        damage(Chunk::open(&good[..51])),
        "it is shorter than a header"
    );
    assert_eq!(damage(with(0, b'k')), "it does not begin as a chunk does");
    assert_eq!(damage(with(11, 1)), "its count is beyond the maximum");
    assert_eq!(damage(with(7, 65)), "a column is wider than 64 bits");
    assert_eq!(damage(with(8, 11)), "its length is not that of its columns");

    let mut bytes = good.clone();
    bytes[60] ^= 1;
    let error = Chunk::open(bytes).err().unwrap();
    assert_eq!(error.to_string(), "chunk is damaged: its checksum is wrong");

    assert_eq!(damage(with(3, 2)), "its length is not that of its columns");
    let error = with(3, 3).err().unwrap();
    assert_eq!(error, ChunkError::Version(3));
    assert_eq!(
        error.to_string(),
        "chunk is of version 3, and only versions up to 2 can be read"
    );
}

#[test]
fn the_greatest_count_is_legal_and_the_next_is_not() {
    let claiming = |count: u32| {
        let mut body = pack(&[]);
        body.truncate(HEADER_BYTES);
        body[8..12].copy_from_slice(&count.to_le_bytes());
        damage(Chunk::open(seal(body)))
    };
    let length = "its length is not that of its columns";
    assert_eq!(claiming(1 << 24), length);
    assert_eq!(claiming((1 << 24) + 1), "its count is beyond the maximum");
    assert_eq!(claiming(u32::MAX), "its count is beyond the maximum");
}

#[test]
fn bytes_that_change_after_opening_do_no_harm() {
    /// Shows its bytes once and is empty from then on.
    struct Vanishing(Vec<u8>, std::cell::Cell<bool>);

    impl AsRef<[u8]> for Vanishing {
        fn as_ref(&self) -> &[u8] {
            if self.1.replace(true) { &[] } else { &self.0 }
        }
    }

    let rows = slice(128, 60_000);
    let bytes = Vanishing(pack(&rows), false.into());
    let chunk = Chunk::open(bytes).unwrap();
    assert_eq!(chunk.get(rows[5].0), None);
    assert_eq!(chunk.fingerprints().count(), 128);
    assert_eq!(chunk.entries().count(), 128);
}

#[test]
fn chunks_are_as_many_as_the_entries_fill() {
    assert_eq!(chunks_for(0), 1);
    assert_eq!(chunks_for(256), 1);
    assert_eq!(chunks_for(257), 2);
    assert_eq!(chunks_for(230_000), 899);
    assert_eq!(chunks_for(256 * u64::from(u32::MAX)), u32::MAX);
    assert_eq!(chunks_for(256 * u64::from(u32::MAX) + 1), u32::MAX);
    assert_eq!(chunks_for(u64::MAX), u32::MAX);
}

#[test]
fn the_first_and_the_last_fingerprint_are_in_the_first_and_the_last_chunk() {
    for chunks in [1, 2, 3, 1797, u32::MAX] {
        assert_eq!(chunk_of(0, chunks), 0);
        assert_eq!(chunk_of(u128::MAX, chunks), chunks - 1);
    }
    assert_eq!(chunk_of(fingerprint(1 << 63, 0) - 1, 2), 0);
    assert_eq!(chunk_of(fingerprint(1 << 63, 0), 2), 1);
    assert_eq!(chunk_of(u128::MAX, 0), 0);
}

#[test]
fn a_slice_divided_into_chunks_takes_at_most_23_bytes_an_entry() {
    for lasting_ms in [10_000, 3 * 60 * 60 * 1000] {
        let rows = slice(230_000, lasting_ms);
        let chunks = chunks_for(230_000);
        let sharing_a_chunk =
            |left: &Row, right: &Row| chunk_of(left.0, chunks) == chunk_of(right.0, chunks);
        let packed: Vec<(usize, usize)> = rows
            .chunk_by(sharing_a_chunk)
            .map(|share| (share.len(), pack(share).len()))
            .collect();
        let bytes: usize = packed.iter().map(|share| share.1).sum();
        assert!(bytes <= rows.len() * 23, "{bytes} bytes in all");
        for (count, bytes) in packed {
            assert!(
                count < 128 || bytes <= count * 23,
                "{bytes} bytes for {count} entries"
            );
        }
    }
}
