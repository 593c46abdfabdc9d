# The two commands of the README, and what they rest on. Everything needed is installed or named.

.PHONY: demo test lint build deps deny clean

demo: deps
	cargo run --release --locked -- demo

# Failpoints let the tests kill the service at each named step of a commit.
test: deps
	cargo test --locked --features failpoints

build: deps
	cargo build --release --locked

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features failpoints

deny:
	cargo deny --offline check bans licenses sources

deps:
	@bash .ci/deps

clean:
	cargo clean
