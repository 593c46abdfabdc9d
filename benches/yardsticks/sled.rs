//! sled 0.34 as it comes, one key an id.

use std::path::Path;

use tempfile::TempDir;

use super::{SeenSet, value};
use crate::results::scratch;
use crate::stream::{Record, fingerprint};

pub struct Sled {
    db: sled::Db,
    ordinal: u64,
    dir: TempDir,
}

impl Sled {
    /// It takes about 1.5 KB of memory an id, whatever its cache capacity.
    pub const MOST_IDS: u64 = 2_000_000;

    pub fn new() -> Self {
        let dir = scratch();
        let db = sled::open(dir.path()).expect("sled opens");
        Self {
            db,
            ordinal: 0,
            dir,
        }
    }
}

impl SeenSet for Sled {
    fn name(&self) -> &'static str {
        "sled, a key an id"
    }

    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        for record in records {
            let key = fingerprint(&record.id).to_be_bytes();
            let is_duplicate = self.db.contains_key(key).expect("sled reads");
            if !is_duplicate {
                let value = value(record, self.ordinal);
                self.ordinal += 1;
                self.db.insert(key, &value).expect("sled writes");
            }
            verdicts.push(is_duplicate);
        }
    }

    fn settle(&mut self) {
        self.db.flush().expect("sled flushes");
    }

    fn is_seen(&mut self, fingerprint: u128) -> bool {
        self.db
            .get(fingerprint.to_be_bytes())
            .expect("sled reads")
            .is_some()
    }

    fn forget(&mut self, fingerprints: &mut dyn Iterator<Item = u128>) {
        for fingerprint in fingerprints {
            self.db
                .remove(fingerprint.to_be_bytes())
                .expect("sled removes");
        }
    }

    fn dir(&self) -> Option<&Path> {
        Some(self.dir.path())
    }
}
