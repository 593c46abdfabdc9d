//! Schemas of a registry, for ids that only a schema can find: by id, fetched once, kept compiled.
//!
//! Who judges records never waits for a registry: [`Schemas::look_up`] answers at once, and where a
//! schema is not known yet a thread of its own asks for it, again and again until the registry answers.
//! What the id of a record is depends on the schema's content alone, which never changes for its id; so
//! no order of events, no restart and no outage can change it. The one answer that can change is that
//! the registry has no such schema: see [`UnknownSchema`].

mod avro;
mod plan;
mod protobuf;
mod registry;

pub use plan::{Format, Place, Plan, Pointer, Prospect, Schema, unframe};
pub use registry::{Registry, Trouble};

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, IdSource, UnknownSchema};
use crate::exit::Stop;
use crate::metrics::Metrics;

/// Compiled schemas that are kept, and about how many bytes they take all together.
const KNOWN_MAX: usize = 1_000;
const KNOWN_MAX_BYTES: usize = 64 << 20;
/// Schemas that are asked for, or that the registry does not know.
const ASKED_MAX: usize = 1_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A question that nobody wants the answer of any more is dropped after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// With `unknown: missing`, how long a registry's no is taken for its answer.
const NO_LASTS: Duration = Duration::from_secs(60);
/// With `unknown: fail`, how long a registry has to say no before it is believed: a new schema may not
/// have reached all of its instances.
const NO_TAKES: Duration = Duration::from_secs(10);
/// How long a command that has nothing else to do waits for a registry.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a schema is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// The registry is being asked; nothing may be assumed of the record until it has answered.
    Awaited(u32),
    /// The registry has no schema of this id.
    Unknown(u32),
}

/// A handle; clones share what is known. The default one has no registry and knows no schema.
#[derive(Clone, Default)]
pub struct Schemas(Option<Arc<Handle>>);

/// Ends the thread when the last one goes.
struct Handle(Arc<Inner>);

struct Inner {
    places: Vec<Place>,
    unknown: UnknownSchema,
    /// `None`: there are those that were given, and no others.
    registry: Option<Registry>,
    metrics: Option<Arc<Metrics>>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    known: HashMap<u32, Known>,
    known_bytes: usize,
    /// Counts look-ups, to tell which schema was not used for the longest time.
    clock: u64,
    asked: HashMap<u32, Asked>,
    closed: bool,
}

struct Known {
    /// One for each place.
    plans: Arc<[Plan]>,
    bytes: usize,
    used: u64,
}

struct Asked {
    wanted_at: Instant,
    next_try: Instant,
    pause: Duration,
    /// The registry has said no, at first and at last, and nothing else in between.
    denied: Option<(Instant, Instant)>,
    /// What went wrong last.
    trouble: Option<String>,
}

impl Schemas {
    /// For the ids of this configuration; starts the thread where they need a registry.
    ///
    /// # Errors
    /// Usage (64) where the registry's certificates cannot be read.
    pub fn start(config: &Config, metrics: Option<Arc<Metrics>>) -> Result<Self, Stop> {
        let places = places(&config.id.from);
        let Some(registry) = config.schemas.as_ref().filter(|_| !places.is_empty()) else {
            return Ok(Self::default());
        };
        let inner = Arc::new(Inner {
            places,
            unknown: registry.unknown,
            registry: Some(Registry::new(registry)?),
            metrics,
            state: Mutex::default(),
            news: Condvar::new(),
        });
        let serving = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("schemas".to_owned());
        thread
            .spawn(move || serving.serve())
            .map_err(|error| Stop::internal(format!("no thread for the schemas: {error}")))?;
        Ok(Self(Some(Arc::new(Handle(inner)))))
    }

    /// These schemas and no others, without a registry.
    pub fn given(source: &IdSource, schemas: impl IntoIterator<Item = (u32, Schema)>) -> Self {
        let inner = Inner {
            places: places(source),
            unknown: UnknownSchema::Fail,
            registry: None,
            metrics: None,
            state: Mutex::default(),
            news: Condvar::new(),
        };
        for (id, schema) in schemas {
            inner.keep(id, &schema);
        }
        Self(Some(Arc::new(Handle(Arc::new(inner)))))
    }

    /// Where the registry is; `None` where there is none.
    pub fn url(&self) -> Option<&str> {
        Some(self.inner()?.registry.as_ref()?.url())
    }

    /// Which of the plans of [`Schemas::look_up`] is of this place.
    pub(crate) fn place(&self, place: &Place) -> Option<usize> {
        self.inner()?.places.iter().position(|it| it == place)
    }

    /// Whether a record of an unknown schema counts as one without an id.
    pub(crate) fn unknown_is_missing(&self) -> bool {
        self.inner()
            .is_some_and(|inner| inner.unknown == UnknownSchema::Missing)
    }

    /// The plans of a schema, if it is known; else it is asked for. Never waits. O(1).
    pub fn look_up(&self, id: u32) -> Result<Arc<[Plan]>, Unresolved> {
        let inner = self.inner().ok_or(Unresolved::Unknown(id))?;
        let now = Instant::now();
        let mut guard = inner.lock();
        let state = &mut *guard;
        state.clock += 1;
        if let Some(known) = state.known.get_mut(&id) {
            known.used = state.clock;
            return Ok(Arc::clone(&known.plans));
        }
        if inner.registry.is_none() {
            return Err(Unresolved::Unknown(id));
        }
        if let Some(asked) = state.asked.get_mut(&id) {
            asked.wanted_at = now;
            return Err(match asked.is_denied(inner.unknown, now) {
                true => Unresolved::Unknown(id),
                false => Unresolved::Awaited(id),
            });
        }
        state.make_room(now);
        state.asked.insert(id, Asked::new(now));
        inner.news.notify_all();
        Err(Unresolved::Awaited(id))
    }

    /// What stands in the way of a schema that is awaited; `None` while it is asked for the first
    /// time.
    pub fn trouble(&self, id: u32) -> Option<String> {
        self.inner()?.lock().asked.get(&id)?.trouble.clone()
    }

    /// For a command that has nothing else to do: comes back when the schema is known.
    ///
    /// # Errors
    /// The registry does not answer (69), has no such schema (78), or `go_on` says no (130).
    pub fn wait_for(&self, id: u32, go_on: impl Fn() -> bool) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.look_up(id) {
                Ok(_) => return Ok(()),
                Err(Unresolved::Unknown(_)) if self.unknown_is_missing() => return Ok(()),
                Err(Unresolved::Unknown(_)) => return Err(self.unknown(id, "a record")),
                Err(Unresolved::Awaited(_)) => {}
            }
            if !go_on() {
                return Err(Stop::interrupted("stopped while a schema was waited for"));
            }
            if Instant::now() >= deadline {
                let trouble = self.trouble(id).unwrap_or_default();
                return Err(Stop::unreachable(format!(
                    "the schema {id} could not be had within {} s: {trouble}",
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end that `schemas.unknown: fail` asks for. `record` is its place.
    pub fn unknown(&self, id: u32, record: &str) -> Stop {
        Stop::contradiction(format!(
            "{record} was written with schema {id}, which {} does not know, so its id cannot be told. Look at who wrote it; or set schemas.unknown to missing (such records count as unparsable, see id.missing) or to wait (until the registry knows it)",
            self.url().unwrap_or("the registry")
        ))
    }

    fn inner(&self) -> Option<&Inner> {
        self.0.as_ref().map(|handle| &*handle.0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.news.notify_all();
    }
}

/// Every place in a schema that a part of the id comes from.
pub fn places(source: &IdSource) -> Vec<Place> {
    match source {
        IdSource::Avro(pointer) => vec![Place {
            format: Format::Avro,
            pointer: Pointer::new(pointer),
        }],
        IdSource::Protobuf(pointer) => vec![Place {
            format: Format::Protobuf,
            pointer: Pointer::new(pointer),
        }],
        IdSource::All(sources) => sources.iter().flat_map(places).collect(),
        _ => Vec::new(),
    }
}

impl Inner {
    /// The thread's life: the schema whose turn it is, one at a time.
    fn serve(&self) {
        while let Some(id) = self.next() {
            let Some(registry) = &self.registry else {
                return;
            };
            // A text that a parser panics on costs that schema, not the thread.
            let answer = catch_unwind(AssertUnwindSafe(|| {
                let schema = registry.schema(id)?;
                self.keep(id, &schema);
                Ok::<(), Trouble>(())
            }));
            let answer = answer.unwrap_or_else(|_| {
                Err(Trouble::Refused(
                    "could not be read for a defect of this program; please report it".to_owned(),
                ))
            });
            let outcome = match answer {
                Ok(()) => "answered",
                Err(Trouble::Unknown) => "unknown",
                Err(Trouble::Failed(_)) => "failed",
                Err(Trouble::Refused(_)) => "refused",
            };
            if let Some(metrics) = &self.metrics {
                metrics.schema_requests.with_label_values(&[outcome]).inc();
            }
            match answer {
                Ok(()) => {}
                Err(Trouble::Refused(why)) => self.refuse(id, &why),
                Err(Trouble::Unknown) => {
                    let why = format!("{} has no schema {id}", registry.url());
                    self.not_had(id, why, true);
                }
                Err(Trouble::Failed(why)) => self.not_had(id, why, false),
            }
        }
    }

    /// Waits until a schema is to be asked for; `None` when there is nobody left to ask for one.
    fn next(&self) -> Option<u32> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            state.asked.retain(|_, asked| {
                let lasts = asked.denied.is_some_and(|(_, last)| now < last + NO_LASTS);
                lasts || now < asked.wanted_at + FORGOTTEN_AFTER
            });
            let first = state.asked.iter().min_by_key(|(_, asked)| asked.next_try);
            let wait = match first {
                Some((id, asked)) if asked.next_try <= now => return Some(*id),
                Some((_, asked)) => asked.next_try - now,
                None => FORGOTTEN_AFTER,
            };
            let woken = self.news.wait_timeout(state, wait);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn keep(&self, id: u32, schema: &Schema) {
        let plans: Arc<[Plan]> = self
            .places
            .iter()
            .map(|place| Plan::new(place, schema))
            .collect();
        let bytes = plans.iter().map(Plan::weight).sum::<usize>();
        for plan in plans.iter() {
            let (format, sentence) = (&schema.format, plan.sentence());
            match plan.prospect() {
                Prospect::Ids => tracing::info!(schema = id, format, "schema {id}: {sentence}"),
                _ => tracing::warn!(schema = id, format, "schema {id}: {sentence}"),
            }
        }
        self.put(id, plans, bytes);
    }

    fn refuse(&self, id: u32, why: &str) {
        tracing::warn!(
            schema = id,
            "schema {id} {why}: its records count as unparsable"
        );
        let plans = self.places.iter().map(|_| Plan::refused(why));
        self.put(id, plans.collect(), 0);
    }

    fn put(&self, id: u32, plans: Arc<[Plan]>, bytes: usize) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.asked.remove(&id);
        state.clock += 1;
        let used = state.clock;
        state.known_bytes += bytes;
        let known = Known { plans, bytes, used };
        if let Some(before) = state.known.insert(id, known) {
            state.known_bytes -= before.bytes;
        }
        while state.known.len() > KNOWN_MAX
            || (state.known_bytes > KNOWN_MAX_BYTES && state.known.len() > 1)
        {
            let oldest = state.known.iter().min_by_key(|(_, known)| known.used);
            let Some((&oldest, _)) = oldest else { break };
            if let Some(gone) = state.known.remove(&oldest) {
                state.known_bytes -= gone.bytes;
            }
        }
    }

    fn not_had(&self, id: u32, why: String, denied: bool) {
        let mut state = self.lock();
        let Some(asked) = state.asked.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        if asked.trouble.is_none() {
            tracing::warn!(schema = id, "schema {id} cannot be had yet: {why}");
        }
        asked.trouble = Some(why);
        asked.next_try = now + asked.pause;
        asked.pause = (2 * asked.pause).min(LONGEST_PAUSE);
        asked.denied = denied.then(|| (asked.denied.map_or(now, |(first, _)| first), now));
        if denied && self.unknown == UnknownSchema::Missing {
            asked.next_try = now + NO_LASTS;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The one that nobody has wanted for the longest time makes room; if it is wanted all the same, it
    /// is asked for again.
    fn make_room(&mut self, now: Instant) {
        if self.asked.len() >= ASKED_MAX {
            let oldest = self.asked.iter().min_by_key(|(_, asked)| asked.wanted_at);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| self.asked.remove(&id));
        }
        debug_assert!(self.asked.values().all(|asked| asked.wanted_at <= now));
    }
}

impl Asked {
    fn new(now: Instant) -> Self {
        Self {
            wanted_at: now,
            next_try: now,
            pause: FIRST_PAUSE,
            denied: None,
            trouble: None,
        }
    }

    /// Whether the registry's no is taken for its answer.
    fn is_denied(&self, unknown: UnknownSchema, now: Instant) -> bool {
        match (unknown, self.denied) {
            (UnknownSchema::Wait, _) | (_, None) => false,
            (UnknownSchema::Missing, Some((_, last))) => now < last + NO_LASTS,
            (UnknownSchema::Fail, Some((first, last))) => last >= first + NO_TAKES,
        }
    }
}

#[cfg(test)]
mod tests;
