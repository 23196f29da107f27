# make demo    starts everything on this machine and prints what to try
# make test    runs every test
# make console builds the pages for browsers; demo and test do it too
# make check   format, lints, docs, licences and advisories, architecture
# make bench   runs the benchmarks, the whole gateway beside HAProxy included
#
# make bench BENCH=gateway ARGS="--only burst,paced --rounds 4" runs part of them.
# make demo STATE=/tmp/postern LISTEN=127.0.0.1:0 passes those on to the demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench console

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(CURDIR)/build/venv
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

DEMO_FLAGS ?=
DEMO_FLAGS += $(if $(STATE),--state "$(STATE)") $(if $(LISTEN),--listen "$(LISTEN)")
# The AWS CLI for the demo, if the machine has none of its own.
AWS_FLAG = $(if $(shell which aws 2>/dev/null),,--aws-bin "$(VENV)/bin")
FUZZ_SECONDS ?= 15

help:
	@sed -n 's/^# make/make/p' Makefile

# What the pages are made of; built again only if some of it is newer.
WEB := gateway/console/web
PAGES := $(WEB)/dist/app/index.html
WEB_SOURCES := $(shell find $(WEB)/src $(WEB)/public -type f) $(WEB)/index.html $(WEB)/package-lock.json $(WEB)/vite.config.ts $(WEB)/tsconfig.json

$(PAGES): $(WEB_SOURCES)
	@.ci/setup console
	@cd $(WEB) && npm ci --silent --ignore-scripts && npm run --silent build
	@touch $@

console: $(PAGES)

demo: console
	@.ci/setup demo
	@cargo build --release --locked --bin postern
	@exec "$(TARGET)/release/postern" demo $(AWS_FLAG) $(DEMO_FLAGS)

test: console
	@.ci/setup test
	cd $(WEB) && npm test --silent
ifeq ($(NEXTEST),yes)
	cargo nextest run --workspace --locked
else
	cargo test --workspace --locked --lib --bins --tests
endif
	cargo test --workspace --locked --doc
	@if [ -d tests/e2e ]; then \
		cargo build --locked --bin postern; \
		export PATH="$(CURDIR)/build/bin:$(VENV)/bin:$$PATH" POSTERN_BIN="$$(realpath "$(TARGET)/debug/postern")"; \
		echo "pytest tests/e2e"; python -m pytest -q tests/e2e; \
	fi
	@if [ -d tests/browser ]; then \
		cd tests/browser && npm ci --silent --ignore-scripts; \
		echo "playwright tests/browser"; \
		POSTERN_BIN="$(abspath $(TARGET))/debug/postern" npx playwright test; \
	fi
	@.ci/fuzz $(FUZZ_SECONDS)

check: console
	@.ci/setup check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	python3 .ci/audit
	cargo test --locked --quiet --test postern architecture::

bench:
	@.ci/setup bench
	cargo bench --workspace --locked $(if $(BENCH),--bench "$(BENCH)") $(if $(ARGS),-- $(ARGS))
