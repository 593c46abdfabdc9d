//! redb 4 as it comes (a cache of 1 GiB), a copy-on-write B-tree, one key an id; a transaction of its own a transaction, synced
//! every tenth time as the window syncs a slice at a time.

use std::path::Path;

use ::redb::{Database, Durability, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

use super::{SeenSet, value};
use crate::results::scratch;
use crate::stream::{Record, fingerprint};

const IDS: TableDefinition<'_, [u8; 16], [u8; 24]> = TableDefinition::new("ids");
const TRANSACTIONS_A_SYNC: u64 = 10;

pub struct Redb {
    db: Database,
    ordinal: u64,
    transactions: u64,
    dir: TempDir,
}

impl Redb {
    pub fn new() -> Self {
        let dir = scratch();
        let db = Database::create(dir.path().join("ids.redb")).expect("redb opens");
        let redb = Self {
            db,
            ordinal: 0,
            transactions: 0,
            dir,
        };
        redb.transact(true, |_| {});
        redb
    }

    fn transact(&self, sync: bool, work: impl FnOnce(&mut Table<'_>)) {
        let mut transaction = self.db.begin_write().expect("a transaction");
        let durability = if sync {
            Durability::Immediate
        } else {
            Durability::None
        };
        transaction
            .set_durability(durability)
            .expect("no savepoint");
        work(&mut transaction.open_table(IDS).expect("a table"));
        transaction.commit().expect("redb commits");
    }
}

type Table<'a> = ::redb::Table<'a, [u8; 16], [u8; 24]>;

impl SeenSet for Redb {
    fn name(&self) -> &'static str {
        "redb, a key an id"
    }

    fn judge(&mut self, records: &[Record], verdicts: &mut Vec<bool>) {
        use ::redb::ReadableTable;
        verdicts.clear();
        self.transactions += 1;
        let mut ordinal = self.ordinal;
        self.transact(
            self.transactions.is_multiple_of(TRANSACTIONS_A_SYNC),
            |table| {
                for record in records {
                    let key = fingerprint(&record.id).to_be_bytes();
                    let is_duplicate = table.get(key).expect("redb reads").is_some();
                    if !is_duplicate {
                        table
                            .insert(key, value(record, ordinal))
                            .expect("redb writes");
                        ordinal += 1;
                    }
                    verdicts.push(is_duplicate);
                }
            },
        );
        self.ordinal = ordinal;
    }

    fn settle(&mut self) {
        self.transact(true, |_| {});
    }

    fn is_seen(&mut self, fingerprint: u128) -> bool {
        // A read transaction an id is what a program of its kind would do; it is cheap.
        let transaction = self.db.begin_read().expect("a transaction");
        let table = transaction.open_table(IDS).expect("a table");
        table
            .get(fingerprint.to_be_bytes())
            .expect("redb reads")
            .is_some()
    }

    fn forget(&mut self, fingerprints: &mut dyn Iterator<Item = u128>) {
        self.transact(true, |table| {
            for fingerprint in fingerprints {
                table
                    .remove(fingerprint.to_be_bytes())
                    .expect("redb removes");
            }
        });
    }

    fn dir(&self) -> Option<&Path> {
        Some(self.dir.path())
    }
}
