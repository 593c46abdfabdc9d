//! The last warnings and errors of the log, for the page: twenty of them, those that are alike counted together.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const KEPT: usize = 20;
/// Bytes of a sentence; the log has all of it.
const MOST_BYTES: usize = 1000;

#[derive(Debug, Clone)]
pub struct Problem {
    pub is_error: bool,
    pub sentence: String,
    pub first: SystemTime,
    pub last: SystemTime,
    pub times: u64,
}

/// Clones share one.
#[derive(Clone, Default)]
pub struct Problems(Arc<Mutex<VecDeque<Problem>>>);

impl Problems {
    /// Newest first.
    pub fn latest(&self) -> Vec<Problem> {
        self.lock().iter().rev().cloned().collect()
    }

    fn note(&self, is_error: bool, sentence: String) {
        let now = SystemTime::now();
        let mut problems = self.lock();
        let alike = problems
            .iter()
            .position(|it| is_like(&it.sentence, &sentence));
        let mut problem = alike.and_then(|at| problems.remove(at)).unwrap_or(Problem {
            is_error,
            sentence: String::new(),
            first: now,
            last: now,
            times: 0,
        });
        problem.is_error = is_error;
        problem.times += 1;
        problem.last = now;
        problem.sentence = sentence;
        if problems.len() >= KEPT {
            problems.pop_front();
        }
        problems.push_back(problem);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Problem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same but for numbers.
fn is_like(a: &str, b: &str) -> bool {
    let words = |byte: &u8| !byte.is_ascii_digit();
    a.bytes().filter(words).eq(b.bytes().filter(words))
}

impl<S: Subscriber> Layer<S> for Problems {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        let mut text = sentence.message + &sentence.fields;
        if text.len() > MOST_BYTES {
            text.truncate(text.floor_char_boundary(MOST_BYTES));
            text.push('…');
        }
        self.note(level == Level::ERROR, text);
    }
}

#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
}

impl Visit for Sentence {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.add(name, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.add(name, value),
        }
    }
}

impl Sentence {
    fn add(&mut self, name: &str, value: &dyn Debug) {
        // What a field says beside the sentence, bounded before it is cut.
        if self.fields.len() <= MOST_BYTES {
            let _ = write!(self.fields, " {name}={value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn what_is_alike_is_counted_and_the_oldest_go() {
        let problems = Problems::default();
        let subscriber = tracing_subscriber::registry().with(problems.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("nothing");
            for offset in 0..5 {
                tracing::warn!(topic = "a", offset, "record {offset} is odd");
            }
            for name in ["x", "y"] {
                tracing::error!("{name} failed");
            }
        });
        let latest = problems.latest();
        assert_eq!(latest.len(), 3);
        assert_eq!(latest[0].sentence, "y failed");
        assert!(latest[0].is_error && !latest[2].is_error);
        assert_eq!(latest[2].times, 5);
        assert_eq!(latest[2].sentence, "record 4 is odd topic=\"a\" offset=4");
        // The latest of them says how bad it is.
        problems.note(true, latest[2].sentence.clone());
        assert!(problems.latest()[0].is_error);
        for number in 0..100_u8 {
            problems.note(false, format!("{}", char::from(number)).repeat(3000));
        }
        assert_eq!(problems.latest().len(), KEPT);
    }
}
