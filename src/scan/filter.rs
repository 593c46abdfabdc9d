//! Pass one: which ids may occur more than once.
//!
//! A Bloom filter never says "new" of an id that it was shown before, so what it calls new for the
//! whole pass occurs once, and needs no counting. It does take some new ids for old; pass two, which
//! counts exactly, finds them out.

use bloomfilter::Bloom;

use super::budget::Budget;
use super::span::Span;
use crate::window::Fingerprint;

/// The two filters of pass one over a span.
pub struct Filter {
    span: Span,
    seen: Bloom<Fingerprint>,
    candidates: Candidates,
    /// Records with an id in the span.
    ids: u64,
    /// Records that may repeat an id: never fewer than those that do.
    suspects: u64,
}

/// The ids that pass two has to look at.
pub struct Candidates {
    filter: Bloom<Fingerprint>,
    /// Different ones, about: a filter counted them.
    count: u64,
}

impl Filter {
    pub fn new(budget: &Budget, span: Span) -> Self {
        Self {
            span,
            seen: budget.seen.filter(1),
            candidates: Candidates {
                filter: budget.candidates.filter(2),
                count: 0,
            },
            ids: 0,
            suspects: 0,
        }
    }

    /// Takes an id in; those outside of the span are passed over. O(1).
    pub fn see(&mut self, id: Fingerprint) {
        if !self.span.contains(id) {
            return;
        }
        self.ids += 1;
        if self.seen.check_and_set(&id) {
            self.suspects += 1;
            let known = self.candidates.filter.check_and_set(&id);
            self.candidates.count += u64::from(!known);
        }
    }

    pub fn ids(&self) -> u64 {
        self.ids
    }

    pub fn suspects(&self) -> u64 {
        self.suspects
    }

    /// Frees the larger filter.
    pub fn into_candidates(self) -> Candidates {
        self.candidates
    }
}

impl Candidates {
    /// Whether the id may occur more than once. O(1).
    pub fn contain(&self, id: Fingerprint) -> bool {
        self.filter.check(&id)
    }

    /// Different candidates, about.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn id(number: u64) -> Fingerprint {
        xxh3_128(&number.to_le_bytes())
    }

    #[test]
    fn every_id_that_repeats_is_a_candidate_and_few_others_are() {
        let mut filter = Filter::new(&Budget::of_free(1 << 24, 11_000), Span::WHOLE);
        (0..10_000).chain(0..1000).for_each(|n| filter.see(id(n)));
        assert_eq!(filter.ids(), 11_000);
        assert!(
            (1000..1200).contains(&filter.suspects()),
            "{}",
            filter.suspects()
        );
        let candidates = filter.into_candidates();
        assert!((0..1000).all(|n| candidates.contain(id(n))));
        let mistaken = (1000..10_000)
            .filter(|n| candidates.contain(id(*n)))
            .count();
        assert!(mistaken < 200, "{mistaken}");
        assert!(
            (1000..1200).contains(&candidates.count()),
            "{}",
            candidates.count()
        );
    }

    #[test]
    fn ids_outside_of_the_span_are_passed_over() {
        let half = Span::WHOLE.front(Span::WHOLE.width() / 2);
        let mut filter = Filter::new(&Budget::of_free(1 << 24, 1000), half);
        (0..1000).chain(0..1000).for_each(|n| filter.see(id(n)));
        let inside = (0..1000).filter(|n| half.contains(id(*n))).count() as u64;
        assert_eq!(filter.ids(), 2 * inside);
        assert!((400..600).contains(&inside), "{inside}");
    }
}
