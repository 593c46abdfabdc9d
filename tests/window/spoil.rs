//! What can become of the store's files while nobody looks.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Debug, Clone)]
pub enum Spoils {
    Keep,
    Lose,
    /// The whole store as it was at an earlier restart.
    Backup,
    /// One slice as it was then, beside the others as they are now.
    BackupOfOne(Index),
    LoseSlice(Index),
    SwapSlices(Index, Index),
    Flip(Index, Index, u8),
    Zero(Index, Index),
    Truncate(Index, Index),
    LoseFile(Index),
    Stray(Index, Vec<u8>),
}

pub fn any() -> impl Strategy<Value = Spoils> {
    let index = || any_index();
    prop_oneof![
        6 => Just(Spoils::Keep),
        1 => Just(Spoils::Lose),
        2 => Just(Spoils::Backup),
        2 => index().prop_map(Spoils::BackupOfOne),
        2 => index().prop_map(Spoils::LoseSlice),
        1 => (index(), index()).prop_map(|(a, b)| Spoils::SwapSlices(a, b)),
        3 => (index(), index(), 0_u8..8).prop_map(|(file, at, bit)| Spoils::Flip(file, at, bit)),
        1 => (index(), index()).prop_map(|(file, at)| Spoils::Zero(file, at)),
        1 => (index(), index()).prop_map(|(file, at)| Spoils::Truncate(file, at)),
        1 => index().prop_map(Spoils::LoseFile),
        1 => (index(), prop::collection::vec(proptest::num::u8::ANY, 0..200))
            .prop_map(|(file, bytes)| Spoils::Stray(file, bytes)),
    ]
}

fn any_index() -> impl Strategy<Value = Index> {
    proptest::arbitrary::any::<Index>()
}

/// Knows where the files are, and what they were.
pub struct Spoiler {
    store: PathBuf,
    backup: PathBuf,
}

impl Spoiler {
    pub fn new(store: &Path) -> Self {
        Self {
            store: store.to_owned(),
            backup: store.with_extension("backup"),
        }
    }

    pub fn spoil(&mut self, spoils: &Spoils) {
        let slices = slices(&self.store);
        let files: Vec<PathBuf> = slices.iter().flat_map(|slice| files(slice)).collect();
        // Sizes differ by far; most of the bytes are in the database, and so most of the damage.
        let file = |index: &Index| {
            let mut files = files.clone();
            files.sort_by_key(|file| std::cmp::Reverse(fs::metadata(file).map_or(0, |m| m.len())));
            (!files.is_empty()).then(|| files[index.index(files.len() * 3) % files.len()].clone())
        };
        let change = |index: &Index, edit: &dyn Fn(&mut Vec<u8>)| {
            if let Some(file) = file(index) {
                let mut bytes = fs::read(&file).unwrap();
                if !bytes.is_empty() {
                    edit(&mut bytes);
                    fs::write(&file, bytes).unwrap();
                }
            }
        };
        match spoils {
            Spoils::Keep => {}
            Spoils::Lose => fs::remove_dir_all(&self.store).unwrap(),
            Spoils::Backup => {
                if self.backup.exists() {
                    let _ = fs::remove_dir_all(&self.store);
                    fs::rename(&self.backup, &self.store).unwrap();
                }
            }
            Spoils::BackupOfOne(index) => {
                let old = self::slices(&self.backup);
                if !old.is_empty() {
                    let old = &old[index.index(old.len())];
                    let place = self.store.join(old.strip_prefix(&self.backup).unwrap());
                    let _ = fs::remove_dir_all(&place);
                    copy(old, &place);
                }
            }
            Spoils::LoseSlice(index) => {
                if !slices.is_empty() {
                    fs::remove_dir_all(&slices[index.index(slices.len())]).unwrap();
                }
            }
            Spoils::SwapSlices(a, b) => {
                if !slices.is_empty() {
                    let (a, b) = (
                        &slices[a.index(slices.len())],
                        &slices[b.index(slices.len())],
                    );
                    let aside = self.store.join("aside");
                    fs::rename(a, &aside).unwrap();
                    if a != b {
                        fs::rename(b, a).unwrap();
                    }
                    fs::rename(&aside, b).unwrap();
                }
            }
            Spoils::Flip(index, at, bit) => change(index, &|bytes| {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }),
            Spoils::Zero(index, at) => change(index, &|bytes| {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + 4096);
                bytes[at..end].fill(0);
            }),
            Spoils::Truncate(index, at) => change(index, &|bytes| {
                bytes.truncate(at.index(bytes.len()));
            }),
            Spoils::LoseFile(index) => {
                if let Some(file) = file(index) {
                    fs::remove_file(file).unwrap();
                }
            }
            Spoils::Stray(index, stray) => change(index, &|bytes| stray.clone_into(bytes)),
        }
        if !self.backup.exists() && self.store.exists() {
            copy(&self.store, &self.backup);
        }
    }
}

fn slices(store: &Path) -> Vec<PathBuf> {
    let scopes = entries(store);
    let is_slice = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("slice-")
    };
    scopes
        .iter()
        .flat_map(|scope| entries(scope))
        .filter(is_slice)
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    entries(dir)
        .into_iter()
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Copies a directory and all in it over what is there.
pub fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in entries(from) {
            copy(&entry, &to.join(entry.file_name().unwrap()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}
