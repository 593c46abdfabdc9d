//! The records that seen sets are fed: ids of 36 characters, as a UUID has, in the order of their
//! numbers, with repeats among them. The same in every run.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The window of every question, in stream time.
pub const WINDOW_MS: i64 = 24 * 60 * 60 * 1000;
/// Records a transaction.
pub const PER_TRANSACTION: usize = 20_000;
/// Duplicates that come soon come within this many ids.
const SOON: u64 = 100_000;
const SEED: u64 = 0x5eed;

pub type Id = [u8; 36];

pub struct Record {
    pub id: Id,
    pub time_ms: i64,
    pub offset: i64,
}

/// Where duplicates repeat from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// The last ids, as most retries do.
    Soon,
    /// Any id of nine tenths of the window.
    Anywhere,
}

/// splitmix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// The id with this number.
pub fn id(number: u64) -> Id {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut random = Random(number);
    let mut bits = u128::from(random.next()) << 64 | u128::from(random.next());
    std::array::from_fn(|at| {
        if matches!(at, 8 | 13 | 18 | 23) {
            return b'-';
        }
        let digit = HEX[bits as usize & 15];
        bits >>= 4;
        digit
    })
}

pub fn fingerprint(id: &Id) -> u128 {
    xxh3_128_with_seed(id, SEED)
}

pub struct Stream {
    /// Ids that a window of time holds.
    pub window_ids: u64,
    /// The number of the next new id.
    pub next: u64,
    offset: i64,
    random: Random,
}

impl Stream {
    pub fn new(window_ids: u64) -> Self {
        Self {
            window_ids,
            next: 0,
            offset: 0,
            random: Random(window_ids),
        }
    }

    /// Records of a transaction: `per_mille` of them are duplicates; `expected` says which.
    pub fn records(
        &mut self,
        count: usize,
        per_mille: u64,
        repeats: Repeats,
    ) -> (Vec<Record>, Vec<bool>) {
        (0..count).map(|_| self.record(per_mille, repeats)).unzip()
    }

    fn record(&mut self, per_mille: u64, repeats: Repeats) -> (Record, bool) {
        let reach = match repeats {
            Repeats::Soon => SOON.min(self.window_ids / 2),
            Repeats::Anywhere => self.window_ids / 10 * 9,
        };
        let is_duplicate = self.next > 0 && self.random.below(1000) < per_mille;
        let number = if is_duplicate {
            self.next - 1 - self.random.below(reach.min(self.next))
        } else {
            self.next += 1;
            self.next - 1
        };
        let record = Record {
            id: id(number),
            time_ms: self.time_ms(self.next),
            offset: self.offset,
        };
        self.offset += 1;
        (record, is_duplicate)
    }

    fn time_ms(&self, number: u64) -> i64 {
        let time = u128::from(number) * WINDOW_MS as u128 / u128::from(self.window_ids);
        i64::try_from(time).expect("a time")
    }
}
