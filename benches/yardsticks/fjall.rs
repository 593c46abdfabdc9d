//! fjall 3 as it comes, a log-structured merge tree, one key an id; a batch a transaction.

use std::path::Path;
use std::time::Duration;

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use hashbrown::HashSet;
use tempfile::TempDir;

use super::{SeenSet, value};
use crate::results::scratch;
use crate::stream::{Record, fingerprint};

pub struct Fjall {
    db: Database,
    ids: Keyspace,
    ordinal: u64,
    dir: TempDir,
}

impl Fjall {
    pub fn new() -> Self {
        let dir = scratch();
        let db = Database::builder(dir.path()).open().expect("fjall opens");
        let ids = db
            .keyspace("ids", KeyspaceCreateOptions::default)
            .expect("a keyspace");
        Self {
            db,
            ids,
            ordinal: 0,
            dir,
        }
    }
}

impl SeenSet for Fjall {
    fn name(&self) -> &'static str {
        "fjall, a key an id"
    }

    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        let mut batch = self.db.batch();
        // A batch cannot be asked what is in it.
        let mut open = HashSet::new();
        for record in records {
            let fingerprint = fingerprint(&record.id);
            let key = fingerprint.to_be_bytes();
            let is_duplicate =
                open.contains(&fingerprint) || self.ids.contains_key(key).expect("fjall reads");
            if !is_duplicate {
                open.insert(fingerprint);
                batch.insert(&self.ids, key, value(record, self.ordinal));
                self.ordinal += 1;
            }
            verdicts.push(is_duplicate);
        }
        batch.commit().expect("fjall commits");
    }

    fn settle(&mut self) {
        self.db.persist(PersistMode::SyncAll).expect("fjall syncs");
        let mut quiet = 0;
        while quiet < 3 {
            let busy = self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_seen(&mut self, fingerprint: u128) -> bool {
        self.ids
            .get(fingerprint.to_be_bytes())
            .expect("fjall reads")
            .is_some()
    }

    fn forget(&mut self, fingerprints: &mut dyn Iterator<Item = u128>) {
        let mut batch = self.db.batch();
        for fingerprint in fingerprints {
            batch.remove(&self.ids, fingerprint.to_be_bytes());
        }
        batch.commit().expect("fjall commits");
    }

    fn dir(&self) -> Option<&Path> {
        Some(self.dir.path())
    }
}
