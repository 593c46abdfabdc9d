//! The partition that a key belongs to, as Kafka's Java client chooses it, so that records with
//! the same key meet in the same partition whoever produced them. A pure function.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The partition of a key that is not null, of `partitions` (less than 1 counts as 1): murmur2,
/// its sign bit cleared, modulo the count. O(key length).
pub fn murmur2_partition(key: &[u8], partitions: i32) -> i32 {
    let positive = (murmur2(key) & 0x7fff_ffff) as i32;
    positive % partitions.max(1)
}

fn murmur2(key: &[u8]) -> u32 {
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_java_client_sends_them() {
        let vectors = include_str!("../tests/data/murmur2.csv");
        let mut compared = 0;
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split(',').collect();
            let key: Vec<u8> = (0..columns[0].len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&columns[0][at..at + 2], 16).unwrap())
                .collect();
            assert_eq!((murmur2(&key) as i32).to_string(), columns[1], "{line}");
            assert_eq!(murmur2_partition(&key, 7).to_string(), columns[2], "{line}");
            compared += 1;
        }
        assert_eq!(compared, 123);
    }

    #[test]
    fn a_count_that_cannot_be_is_no_panic() {
        assert_eq!(murmur2_partition(b"key", 0), 0);
        assert_eq!(murmur2_partition(b"key", i32::MIN), 0);
    }
}
