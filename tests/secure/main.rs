//! Trust, on a real broker with TLS, passwords and ACLs: what is promised where the network and the
//! other users of a cluster are not friends. One broker for all; it is started by the tests.

mod broker;
mod permissions;
mod root;
mod secrets;
mod start;

#[path = "../kit/mod.rs"]
mod kit;
#[allow(dead_code, reason = "it is another test's broker too")]
#[path = "../kit/secured/mod.rs"]
mod secured;
