//! The least that it could be: an exact hash map in memory. It survives nothing.

use hashbrown::HashMap;

use super::SeenSet;
use crate::stream::{Record, fingerprint};

type Entry = (i64, i64, u64);

#[derive(Default)]
pub struct Map(HashMap<u128, Entry, foldhash::fast::RandomState>);

impl SeenSet for Map {
    fn name(&self) -> &'static str {
        "HashMap in memory"
    }

    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        for record in records {
            let ordinal = self.0.len() as u64;
            let mut is_duplicate = true;
            self.0.entry(fingerprint(&record.id)).or_insert_with(|| {
                is_duplicate = false;
                (record.time_ms, record.offset, ordinal)
            });
            verdicts.push(is_duplicate);
        }
    }

    fn settle(&mut self) {}

    fn is_seen(&mut self, fingerprint: u128) -> bool {
        self.0.contains_key(&fingerprint)
    }
}
