# The two commands of the README, and what they rest on. Everything needed is installed or named.

.PHONY: demo mqtt test faults bench bench-small bench-peers bench-peers-small bench-scaling bench-scaling-small instructions instructions-write lint check-deploy check-configs build deps deps-mosquitto deps-peers deps-test deps-valgrind deny clean

demo: deps
	cargo run --release --locked -- demo

# MQTT into Kafka: examples/mqtt.
mqtt: deps-mosquitto
	cargo run --locked --example mqtt -- run

# Failpoints let the tests kill the service at each named step of a commit. They wait for brokers more than they work, so
# one more runs at a time than there are cores.
test: deps-test
	KAFKA_DEDUP_FAULTS_MINUTES=$${KAFKA_DEDUP_FAULTS_MINUTES:-1} RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(nproc) + 1))} \
		cargo test --locked --no-fail-fast --features failpoints,broken

# The long form of the fault campaign, hours of it, and the table of docs/guarantees.md from what it
# did. KAFKA_DEDUP_FAULTS_MINUTES=30 bounds each fault.
faults: deps
	KAFKA_DEDUP_FAULTS=long cargo test --locked --features failpoints,broken --test faults
	cargo test --locked --features failpoints,broken --test faults -- document

# Full size, half an hour and 15 GB of memory; then the tables and plots of docs/benchmarks.md.
# Nothing of them speaks TLS, so the OpenSSL build is left out.
bench: deps
	rm -rf target/bench-results
	cargo bench --locked --no-default-features --bench questions -- --heavy
	cargo bench --locked --no-default-features --bench questions -- document

# All questions at small size: whether they still run, and whether every verdict is right.
bench-small: deps
	cargo test --locked --features failpoints,broken --bench questions

# The same job in Kafka Streams and others, two hours; then its tables in docs/benchmarks.md.
bench-peers: deps-peers
	rm -f target/bench-results/peers*.jsonl
	cargo bench --locked --no-default-features --bench peers -- --heavy
	cargo bench --locked --no-default-features --bench peers -- document

# Whether all of them still run, and each output is right. Built like the tests.
bench-peers-small: deps-peers
	cargo test --locked --features failpoints,broken --bench peers

# Up to a thousand partitions, 20 minutes; then the tables of docs/scaling.md.
bench-scaling: deps
	cargo bench --locked --no-default-features --bench scaling -- --heavy
	cargo bench --locked --no-default-features --bench scaling -- document

# Whether all of it still runs, and each output is right. Built like the tests.
bench-scaling-small: deps
	cargo test --locked --features failpoints,broken --bench scaling

# Counts the instructions of the hot path, and fails where they are more than docs/benchmarks.md says. The crate is
# optimized as in a release; all it rests on is what the tests were built with, so that nothing else has to be compiled.
CRATE = profile.dev.package.kafka-dedup
INSTRUCTIONS = CARGO_INCREMENTAL=0 cargo test --locked --bench instructions --config $(CRATE).opt-level=3 \
	--config $(CRATE).codegen-units=1 --config $(CRATE).debug-assertions=false --config $(CRATE).overflow-checks=false
instructions: deps-valgrind
	$(INSTRUCTIONS)

# Writes down what is counted now: after a change that makes the hot path cheaper, or dearer for a reason.
instructions-write: deps-valgrind
	$(INSTRUCTIONS) -- write

build: deps
	cargo build --release --locked

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --all-targets --features failpoints,broken -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features failpoints,broken

# Alerts, dashboard and runbook against each other and against the metrics that are exported; manifests against
# Kubernetes; image, Compose scene and workflows against what they rest on.
check-deploy:
	@.ci/check-deploy
	@.ci/check-manifests
	@.ci/check-image

# The configs and resources in the manifests against the program, which has to be built; then what they would start is
# started, against a real broker. Takes root.
check-configs:
	@.ci/check-manifests --configs
	@.ci/check-manifests --members > target/members.json
	KAFKA_DEDUP_MEMBERS=target/members.json cargo test --locked --features failpoints,broken --test deployed -- --ignored

deny:
	cargo deny --offline check bans licenses sources

deps:
	@bash .ci/deps

# What the tests need besides: a broker of MQTT, and a browser for the status page.
deps-test:
	@bash .ci/deps mosquitto chromium

# What the peers are built with.
deps-peers:
	@bash .ci/deps javac python3 venv

# What counts instructions.
deps-valgrind:
	@bash .ci/deps valgrind

# Also a broker of MQTT. Only for those who need it: its package starts one, on port 1883, where there is
# a service manager.
deps-mosquitto:
	@bash .ci/deps mosquitto

clean:
	cargo clean
