//! Stretches of the fingerprints' space: which ids one pass looks at.
//!
//! Fingerprints are spread evenly, so a stretch holds its share of the ids, whatever they are; what
//! does not fit into memory at once is counted stretch by stretch.

use crate::window::Fingerprint;

/// Fingerprints whose upper 64 bits are in `[from, to)`; `to` is at most 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: u128,
    pub to: u128,
}

impl Span {
    pub const WHOLE: Self = Self {
        from: 0,
        to: 1 << 64,
    };

    /// The upper 64 bits.
    pub fn point(fingerprint: Fingerprint) -> u128 {
        fingerprint >> 64
    }

    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        (self.from..self.to).contains(&Self::point(fingerprint))
    }

    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    pub fn width(&self) -> u128 {
        self.to.saturating_sub(self.from)
    }

    /// The first `width` points, at least one of them and no more than there are.
    pub fn front(&self, width: u128) -> Self {
        let to = self.from.saturating_add(width.max(1)).min(self.to);
        Self { to, ..*self }
    }

    /// What is left after `front`.
    pub fn after(&self, front: &Self) -> Self {
        Self {
            from: front.to,
            ..*self
        }
    }

    /// Of all fingerprints, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.width() as f64 / Self::WHOLE.width() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_walked_in_fronts_without_gap_or_overlap() {
        let mut rest = Span::WHOLE;
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let front = rest.front(Span::WHOLE.width() / 3);
            seen.push(front);
            rest = rest.after(&front);
        }
        assert_eq!(seen.len(), 4);
        for fingerprint in [0, 1, u128::MAX / 3, u128::MAX / 2, u128::MAX] {
            let holders = seen.iter().filter(|span| span.contains(fingerprint));
            assert_eq!(holders.count(), 1, "{fingerprint:x}");
        }
        let shares: f64 = seen.iter().map(Span::share).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_front_always_gets_on() {
        assert_eq!(Span::WHOLE.front(0).width(), 1);
        assert!(Span::WHOLE.contains(u128::MAX));
    }
}
