//! The store's directories: whose they are, what their slices say, and what the next start would
//! make of them. Slices are read from copies, see [`crate::store::inspect`].

use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::cluster::Cluster;
use super::progress::Progress;
use super::report::{
    Aside, Checkpoint, Foreign, JournalPartition, Scope, Seal, Slice, State, Store, hex,
};
use super::{Asked, report};
use crate::config::TopicPattern;
use crate::exit::Stop;
use crate::identify::deployment_seed;
use crate::store::inspect::{self, Copied, Looked, ScopeDir, Scratch, SetAside, SliceDir};
use crate::store::record::SealRecord;
use crate::store::{self, Damage, Entry, Fingerprint, Lineage};
use crate::topics::OwnTopics;

/// Reads every id of every sound slice of the selected scopes, to see that it can be read.
pub(super) fn look(asked: &Asked, cluster: Option<&Cluster>) -> Store {
    let (config, selection) = (&asked.config, &asked.selection);
    let mut store = Store {
        path: config.store.path.display().to_string(),
        ..Store::default()
    };
    let dirs = match inspect::scope_dirs(&config.store.path) {
        Ok(dirs) => dirs,
        Err(error) => {
            store.trouble = Some(match error.kind() {
                ErrorKind::NotFound => "it does not exist: nothing was stored yet".to_owned(),
                _ => format!("it cannot be read: {error}"),
            });
            return store;
        }
    };
    let room = Room::new(asked, cluster, &dirs);
    for dir in &dirs {
        match room.owner(dir) {
            Owner::Ours {
                input,
                topic,
                partition,
            } => {
                if selection.has(&input, partition) {
                    let lineage = room.lineage(&topic, partition);
                    let examined = room.examine(dir, &lineage, |slice| slice.entries(|_, _| {}));
                    store.scopes.push(examined.report(dir, topic, partition));
                }
            }
            Owner::Foreign(why) if selection.is_all() => store.foreign.push(foreign(dir, why)),
            Owner::Foreign(_) => {}
        }
    }
    store.count();
    store
}

/// What the store of one partition knows of an id.
pub(super) struct Found {
    pub topic: String,
    pub partition: i32,
    pub in_use: bool,
    /// The newest entry, and the slice that holds it.
    pub entry: Option<(Entry, String)>,
    pub checkpoint: Option<store::Checkpoint>,
    /// Slices that could not be asked, each with why.
    pub unread: Vec<String>,
}

/// Looks an id up in all slices of the selected scopes.
///
/// # Errors
/// The store's directory is there and cannot be read: the sentence says why.
pub(super) fn find(
    asked: &Asked,
    cluster: Option<&Cluster>,
    fingerprint: Fingerprint,
) -> Result<Vec<Found>, String> {
    let (config, selection) = (&asked.config, &asked.selection);
    let path = &config.store.path;
    let dirs = inspect::scope_dirs(path)
        .map_err(|error| format!("the store {} cannot be read: {error}", path.display()))?;
    let room = Room::new(asked, cluster, &dirs);
    let mut all = Vec::new();
    for dir in &dirs {
        let Owner::Ours {
            input,
            topic,
            partition,
        } = room.owner(dir)
        else {
            continue;
        };
        if !selection.has(&input, partition) {
            continue;
        }
        let mut entry: Option<(Entry, String)> = None;
        let lineage = room.lineage(&topic, partition);
        let examined = room.examine(dir, &lineage, |slice| {
            if let Some(found) = slice.get(fingerprint)?
                && entry
                    .as_ref()
                    .is_none_or(|(e, _)| e.ordinal < found.ordinal)
            {
                entry = Some((found, format!("slice-{:020}", slice.span().first_ordinal)));
            }
            Ok(())
        });
        let unread = examined.slices.iter().filter_map(|slice| {
            let why = slice.report.why.as_ref()?;
            Some(format!("{}/{}: {why}", dir_name(dir), slice.report.name))
        });
        all.push(Found {
            in_use: examined.in_use,
            checkpoint: examined.checkpoint(),
            unread: unread.collect(),
            topic,
            partition,
            entry,
        });
    }
    Ok(all)
}

enum Owner {
    /// A partition of a topic that is judged as this input.
    Ours {
        input: String,
        topic: String,
        partition: i32,
    },
    Foreign(String),
}

struct Room<'a> {
    asked: &'a Asked,
    cluster: Option<&'a Cluster>,
    own: OwnTopics,
    /// Topics whose directory need not show their whole name.
    topics: Vec<String>,
    scratch: Result<Scratch, String>,
    progress: Progress,
}

impl<'a> Room<'a> {
    fn new(asked: &'a Asked, cluster: Option<&'a Cluster>, dirs: &[ScopeDir]) -> Self {
        let config = &asked.config;
        let named = config
            .input
            .topics
            .iter()
            .filter_map(|pattern| match pattern {
                TopicPattern::Name(name) => Some(name.clone()),
                TopicPattern::Regex(_) => None,
            });
        let own = OwnTopics::new(config);
        let found = cluster.iter().flat_map(|cluster| &cluster.inputs);
        let slices: usize = dirs.iter().map(|dir| dir.slices.len()).sum();
        Self {
            asked,
            cluster,
            topics: named
                .map(|input| own.judged(&input))
                .chain(found.map(|input| input.topic.clone()))
                .collect(),
            own,
            scratch: Scratch::new().map_err(|error| error.to_string()),
            progress: Progress::new(slices as u64, "slices"),
        }
    }

    fn owner(&self, dir: &ScopeDir) -> Owner {
        let group = &self.asked.config.kafka.group_id;
        match inspect::scope_of(&dir_name(dir), group, &self.topics) {
            Some((topic, partition)) => match self.own.input_of(&topic) {
                Some(input) => Owner::Ours {
                    input,
                    topic,
                    partition,
                },
                None => Owner::Foreign(format!(
                    "of this group, but {topic} is not judged with this config"
                )),
            },
            None => Owner::Foreign("of another group, or not kafka-dedup's".to_owned()),
        }
    }

    /// What a slice of this scope must say of itself; ids that only the cluster knows are left out
    /// where it was not asked.
    fn lineage(&self, topic: &str, partition: i32) -> Expected {
        match self.cluster.and_then(|cluster| cluster.input(topic)) {
            Some(input) => Expected {
                lineage: input.lineage(partition),
                whole: true,
            },
            None => Expected {
                lineage: Lineage {
                    group: self.asked.config.kafka.group_id.clone(),
                    topic: topic.to_owned(),
                    partition,
                    journal: self.own.journal_of(topic),
                    seed: deployment_seed(&self.asked.config.kafka.group_id),
                    ..Lineage::default()
                },
                whole: false,
            },
        }
    }

    /// Opens every slice of a scope, and has those that are sound and ours read.
    fn examine(
        &self,
        dir: &ScopeDir,
        expected: &Expected,
        mut read: impl FnMut(&Copied) -> Result<(), Damage>,
    ) -> Examined {
        self.progress.at(&dir_name(dir));
        let mut examined = Examined::default();
        for slice in &dir.slices {
            let looked = match (&self.scratch, examined.in_use) {
                (_, true) => Looked::InUse,
                _ if self.asked.go_on().is_err() => Looked::Unread("stopped".to_owned()),
                (Ok(scratch), _) => inspect::open(&dir.path, &slice.path, scratch),
                (Err(why), _) => Looked::Unread(why.clone()),
            };
            examined.in_use |= matches!(looked, Looked::InUse);
            examined
                .slices
                .push(judge(slice, looked, expected, &mut read));
            self.progress.add(1);
        }
        if dir.slices.is_empty() {
            examined.in_use = inspect::is_in_use(&dir.path).unwrap_or(false);
        }
        examined.link();
        examined
    }
}

struct Expected {
    lineage: Lineage,
    /// Whether the cluster's ids are known.
    whole: bool,
}

impl Expected {
    /// What is different about a slice that is not of this scope as it is now.
    fn difference(&self, found: &Lineage) -> Option<String> {
        let expected = &self.lineage;
        let text = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
        let ids = [
            ("of cluster", &found.cluster_id, &expected.cluster_id),
            ("of topic id", &found.topic_id, &expected.topic_id),
            ("of journal id", &found.journal_id, &expected.journal_id),
        ];
        let different = ids
            .iter()
            .find(|(_, found, expected)| self.whole && found != expected);
        if let Some((what, found, expected)) = different {
            return Some(format!("{what} {}, not {}", text(found), text(expected)));
        }
        let theirs = (&found.group, &found.topic, found.partition);
        if theirs != (&expected.group, &expected.topic, expected.partition) {
            return Some(format!(
                "of group {}, {}-{}",
                found.group, found.topic, found.partition
            ));
        }
        if found.journal != expected.journal {
            return Some(format!("of journal {}", found.journal));
        }
        (found.seed != expected.seed).then(|| "its fingerprints have another seed".to_owned())
    }
}

/// A scope whose slices were looked into.
#[derive(Default)]
struct Examined {
    in_use: bool,
    slices: Vec<ExaminedSlice>,
    chain: inspect::Chain,
}

struct ExaminedSlice {
    report: Slice,
    /// What it says of itself, and its seal, where it is sound and ours.
    record: Option<(SealRecord, u64)>,
}

fn judge(
    slice: &SliceDir,
    looked: Looked,
    expected: &Expected,
    read: &mut impl FnMut(&Copied) -> Result<(), Damage>,
) -> ExaminedSlice {
    let (state, why, record) = match looked {
        Looked::Sound(copied) => match expected.difference(&copied.record().lineage) {
            Some(why) => (State::Foreign, Some(why), None),
            None => match read(&copied) {
                Ok(()) => {
                    let record = (copied.record().clone(), copied.seal());
                    (State::Sound, None, Some(record))
                }
                Err(damage) => (State::Damaged, Some(damage.why), None),
            },
        },
        Looked::Unfinished => {
            let why = "it has no seal record: its writing did not end, or its end was damaged; the next start removes it";
            (State::Unfinished, Some(why.to_owned()), None)
        }
        Looked::OtherFormat(why) => (State::Foreign, Some(why), None),
        Looked::Damaged(why) => (State::Damaged, Some(plain(&why)), None),
        Looked::InUse => (State::Unread, None, None),
        Looked::Unread(why) => (State::Unread, Some(why), None),
    };
    ExaminedSlice {
        report: Slice {
            name: name(&slice.path),
            bytes: slice.bytes,
            changed: slice.changed.map(wall_ms),
            state,
            why,
            on_chain: None,
            used_at_start: None,
            seal: record.as_ref().map(|(record, seal)| seal_of(record, *seal)),
        },
        record,
    }
}

/// Without what sled adds for its own developers.
fn plain(why: &str) -> String {
    why.replace(" at file offset None", "")
        .replace(" backtrace ()", "")
}

fn seal_of(record: &SealRecord, seal: u64) -> Seal {
    Seal {
        ids: record.entries,
        chunks: record.chunks,
        first_ordinal: record.span.first_ordinal,
        end_ordinal: record.span.end_ordinal,
        oldest_time: record.span.oldest_time_ms,
        newest_time: record.span.newest_time_ms,
        oldest_age_ms: None,
        newest_age_ms: None,
        journal_from: record.span.journal_from,
        seal: hex(seal),
    }
}

impl Examined {
    /// Finds out which of the sound slices belong together.
    fn link(&mut self) {
        let places: Vec<usize> = (0..self.slices.len())
            .filter(|at| self.slices[*at].record.is_some())
            .collect();
        let sound: Vec<(&SealRecord, u64)> = places
            .iter()
            .filter_map(|at| self.slices[*at].record.as_ref())
            .map(|(record, seal)| (record, *seal))
            .collect();
        let mut chain = inspect::chain(&sound);
        for places_of in [&mut chain.kept, &mut chain.behind_gap] {
            places_of.iter_mut().for_each(|at| *at = places[*at]);
        }
        for at in places {
            let used = chain.kept.contains(&at);
            let report = &mut self.slices[at].report;
            report.on_chain = Some(used || chain.behind_gap.contains(&at));
            report.used_at_start = Some(used);
        }
        self.chain = chain;
    }

    /// What the next start goes on from.
    fn checkpoint(&self) -> Option<store::Checkpoint> {
        let (record, _) = self.slices[*self.chain.kept.last()?].record.as_ref()?;
        Some(record.checkpoint)
    }

    fn report(self, dir: &ScopeDir, topic: String, partition: i32) -> Scope {
        let checkpoint = self.checkpoint();
        let slices: Vec<Slice> = self.slices.into_iter().map(|slice| slice.report).collect();
        let sound = slices.iter().filter_map(|slice| slice.seal.as_ref());
        Scope {
            directory: dir_name(dir),
            topic,
            partition,
            in_use: self.in_use,
            unfinished_starts: dir.unfinished_starts,
            missing_slices: self.chain.missing as u64,
            checkpoint: checkpoint.as_ref().map(Checkpoint::of),
            anchor: checkpoint.map(|checkpoint| checkpoint.anchor),
            set_aside: dir.set_aside.iter().map(aside).collect(),
            ids: sound.map(|seal| seal.ids).sum(),
            bytes: bytes(dir),
            slices,
        }
    }
}

fn wall_ms(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn aside(aside: &SetAside) -> Aside {
    let now_ms = wall_ms(SystemTime::now());
    Aside {
        name: name(&aside.path),
        reason: aside.reason.clone(),
        since: aside.since_ms,
        age_ms: aside
            .since_ms
            .map(|since| now_ms.saturating_sub(since).max(0).unsigned_abs()),
        bytes: aside.bytes,
    }
}

fn foreign(dir: &ScopeDir, why: String) -> Foreign {
    Foreign {
        directory: dir_name(dir),
        why,
        slices: dir.slices.len() as u64,
        bytes: bytes(dir),
    }
}

fn bytes(dir: &ScopeDir) -> u64 {
    let slices = dir.slices.iter().map(|slice| slice.bytes);
    slices
        .chain(dir.set_aside.iter().map(|aside| aside.bytes))
        .sum()
}

fn dir_name(dir: &ScopeDir) -> String {
    name(&dir.path)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Store {
    fn count(&mut self) {
        let slices = || self.scopes.iter().flat_map(|scope| &scope.slices);
        let foreign = || self.foreign.iter();
        self.total = report::Total {
            scopes: self.scopes.len() as u64,
            slices: slices().count() as u64,
            ids: self.scopes.iter().map(|scope| scope.ids).sum(),
            bytes: self.scopes.iter().map(|scope| scope.bytes).sum::<u64>()
                + foreign().map(|foreign| foreign.bytes).sum::<u64>(),
            damaged: slices().filter(|s| s.state == State::Damaged).count() as u64,
            set_aside: self.scopes.iter().map(|s| s.set_aside.len() as u64).sum(),
        };
    }

    /// Ages of slices: behind the stream time of the journal's last run, else of the checkpoint.
    pub fn tell_ages(&mut self, journal: &[JournalPartition]) {
        for scope in &mut self.scopes {
            let in_journal = journal
                .iter()
                .find(|p| p.topic == scope.topic && p.partition == scope.partition)
                .and_then(|partition| partition.last_run.as_ref()?.stream_time);
            let in_store = scope.checkpoint.as_ref().and_then(|c| c.stream_time);
            let Some(now) = in_journal.max(in_store) else {
                continue;
            };
            let age = |time: i64| Some(if now > time { now.abs_diff(time) } else { 0 });
            for seal in scope.slices.iter_mut().filter_map(|s| s.seal.as_mut()) {
                seal.oldest_age_ms = age(seal.oldest_time);
                seal.newest_age_ms = age(seal.newest_time);
            }
        }
    }

    /// Where the store is all that there was to read: whether anything of it could be read.
    pub fn nothing_read(&self) -> Option<Stop> {
        let path = &self.path;
        if let Some(trouble) = &self.trouble {
            return Some(Stop::contradiction(format!("the store {path}: {trouble}")));
        }
        let mut slices = self.scopes.iter().flat_map(|scope| &scope.slices);
        let unread = |slice: &Slice| matches!(slice.state, State::Damaged | State::Unread);
        let in_use = self.scopes.iter().any(|scope| scope.in_use);
        (self.total.slices > 0 && !in_use && slices.all(unread)).then(|| {
            Stop::contradiction(format!(
                "no slice of the store {path} can be read; the next start sets damaged ones aside and reads the journal"
            ))
        })
    }
}
