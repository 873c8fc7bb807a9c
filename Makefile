# What a developer or an operator runs. Every target works from a clean clone on Debian or Ubuntu with
# git, make, a Rust toolchain and apt.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/bin/cargo-deny
DEB_VERSION := 3.8.0
DEB := $(TOOLS)/bin/cargo-deb
PACKAGE := $(CURDIR)/target/package
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help demo test lint audit bench deb fuzz fmt

help:
	@echo 'make demo   a Redis master dies, freezes and is moved, a Galera writer too, a site changes its region, and the shop goes on'
	@echo 'make test   all tests, against real servers'
	@echo 'make lint   formatting, clippy, licences and duplicates'
	@echo 'make bench  throughput, processor time and memory next to HAProxy'
	@echo 'make deb    a Debian package, in target/debian'
	@echo 'make fuzz   every parser, a minute each (needs a nightly toolchain and cargo-fuzz)'
	@echo 'make audit  known vulnerabilities in dependencies (needs the network)'

# DEMO_ARGS=--haproxy runs HAProxy's usual recipe beside it; --act=7 plays one act alone.
demo:
	scripts/install-packages demo
	$(if $(findstring --haproxy,$(DEMO_ARGS)),scripts/install-packages bench)
	$(CARGO) build --locked -p pilotfish -p pilotfish-harness --bin pilotfish --bin demo
	PILOTFISH_BIN=target/debug/pilotfish target/debug/demo $(DEMO_ARGS)

test:
	scripts/install-packages test
	scripts/install-moto
	$(CARGO) test --locked --workspace

lint: $(DENY)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(DENY) --log-level error check bans licenses sources

audit: $(DENY)
	$(DENY) check advisories

# BENCH_ARGS=--quick and SQL_BENCH_ARGS=--quick for a first look.
bench:
	scripts/install-packages bench
	$(CARGO) build --locked --release -p pilotfish -p pilotfish-loadtest
	PILOTFISH_BIN=target/release/pilotfish target/release/pilotfish-loadtest bench $(BENCH_ARGS)
	PILOTFISH_BIN=target/release/pilotfish target/release/pilotfish-loadtest sysbench $(SQL_BENCH_ARGS)
	PILOTFISH_BIN=target/release/pilotfish target/release/pilotfish-loadtest pgbench $(SQL_BENCH_ARGS)

# Man pages and completions come from the binary itself.
deb: $(DEB)
	$(CARGO) build --locked --release -p pilotfish
	rm -rf $(PACKAGE)
	mkdir -p $(PACKAGE)/man
	$(RELEASE)/pilotfish man --dir $(PACKAGE)/man
	for shell in bash zsh fish; do $(RELEASE)/pilotfish completions $$shell > $(PACKAGE)/pilotfish.$$shell || exit 1; done
	$(DEB) -p pilotfish --no-build --locked

fuzz:
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=60 || exit 1; done

fmt:
	$(CARGO) fmt --all

$(DENY):
	$(CARGO) install --debug --locked --root $(TOOLS) --version $(DENY_VERSION) cargo-deny

$(DEB):
	$(CARGO) install --debug --locked --root $(TOOLS) --version $(DEB_VERSION) cargo-deb
