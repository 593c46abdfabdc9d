//! The broker of these tests: every listener a service may be asked to speak to.

use std::sync::OnceLock;

use crate::secured::{Secured, Way};

pub use crate::secured::PASSWORD;

const WAYS: [Way; 4] = [
    way("SECURED", "SASL_SSL", "good"),
    way("MUTUAL", "SSL", "good"),
    way("EXPIRED", "SSL", "expired"),
    way("ELSEWHERE", "SSL", "elsewhere"),
];

const fn way(listener: &'static str, protocol: &'static str, certificate: &'static str) -> Way {
    Way {
        listener,
        protocol,
        certificate,
        proxied: false,
    }
}

pub fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(|| {
        let mutual = ("listener.name.mutual.ssl.client.auth", "required");
        Secured::start(
            &WAYS,
            &[mutual],
            &["service", "changed", "watched", "checked"],
        )
    })
}
