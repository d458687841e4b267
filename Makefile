.PHONY: demo test faults week fuzz bench lint build deb box

# The whole sink at work on a Kafka broker inside the process. DEMO passes options: make demo DEMO='--for 30s'
demo:
	tests/tools.sh build
	cargo run --locked --quiet -- demo $(DEMO)

# Every test. Those against Apache Kafka run wherever Maven can fetch it, those of the API's description and the archive
# wherever PyPI has schemathesis and DuckDB; REQUIRE_ALL=1 makes both a must.
test:
	tests/tools.sh test
	@left_out=; \
	if ! tests/kafka/kafka.sh fetch; then \
	    [ -z "$$REQUIRE_ALL" ] || exit 1; \
	    echo "The tests against Apache Kafka are left out: it could not be fetched (see above)."; \
	    left_out="--skip apache_kafka"; \
	fi; \
	if ! tests/tools.sh python; then \
	    [ -z "$$REQUIRE_ALL" ] || exit 1; \
	    echo "The tests of the API's description and of what DuckDB reads are left out: neither could be installed (see above)."; \
	    left_out="$$left_out --skip description --skip duckdb"; \
	fi; \
	cargo test --locked -- $$left_out

# The proof by faults at full size: about 25 minutes on two cores. docs/reliability.md says what is done.
faults:
	tests/tools.sh test
	tests/kafka/kafka.sh fetch
	rm -f "$${CARGO_TARGET_DIR:-target}/faults.tsv"
	FAULT_ROUNDS=200 FAULT_CUTS=500 FAULT_REPEATS=10 FAULT_ERRORS=56 FAULT_REPLAYS=100000 \
	    cargo test --locked --test it -- faults:: --test-threads 2
	cargo test --locked --test it -- corruption:: durability:: coverage:: --test-threads 2
	PROPTEST_CASES=5000 cargo test --locked --lib
	@printf 'fault\ttimes\trecords\tlost\tdoubled\tseconds to recover, median\tlongest\n' | \
	    cat - "$${CARGO_TARGET_DIR:-target}/faults.tsv" | column -t -s '	'

# A branch's week, fast-forwarded, once under a limit of age and once under one of size: some minutes for WEEK_EVENTS a day.
WEEK_EVENTS ?= 86400
week:
	tests/tools.sh test
	tests/tools.sh python
	tests/kafka/kafka.sh fetch
	WEEK_EVENTS=$(WEEK_EVENTS) cargo test --locked --test week -- --test-threads 1 --nocapture

# Records and requests' heads as hostile bytes, each for as long as FUZZ_SECONDS says. No sanitizer: it would need nightly Rust.
FUZZ_SECONDS ?= 600
fuzz:
	tests/tools.sh build
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	cargo fuzz run --sanitizer none decode -- -max_total_time=$(FUZZ_SECONDS) -max_len=8192
	cargo fuzz run --sanitizer none head -- -max_total_time=$(FUZZ_SECONDS) -max_len=20000

# Every figure of docs/performance.md, which gets them, in about a quarter of an hour on two cores that do nothing else. PARTS
# names some of them (then the page stays as it is): make bench PARTS='ingest replay'. SHORT=1 only tries whether it works.
bench:
	tests/tools.sh test
	tests/kafka/kafka.sh fetch
	tests/tools.sh bench || echo "The Python consumers are left out."
ifdef SHORT
	cargo test --locked --test it -- performance:: --nocapture
else
	cargo bench --locked --bench performance -- $(PARTS)
endif

# Formatting, lints, licences.
lint:
	tests/tools.sh build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

build:
	tests/tools.sh build
	cargo build --locked --release

# The Debian package, built on Debian 12 for 12 and later: make deb, or make deb ARCH=arm64 with Debian's cross compiler.
deb:
	tests/tools.sh deb $(ARCH)
	packaging/deb.sh $(if $(ARCH),--arch $(ARCH)) | tee /dev/stderr | xargs lintian --allow-root --fail-on error,warning

# The package on a whole machine, root only: BOX=full with the package that `make deb` makes (docs/box-transcript.md), BOX=short
# the chapters that take least, with the program that the tests have built already.
BOX ?= full
box:
	tests/tools.sh box
	tests/box/box.sh $(BOX) "$$(packaging/deb.sh $(if $(filter short,$(BOX)),--profile dev))"
