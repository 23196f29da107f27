# make demo    starts everything on this machine and prints what to try
# make test    runs every test
# make check   format, lints, docs, licences and advisories, architecture
# make bench   runs the benchmarks
#
# make demo STATE=/tmp/postern LISTEN=127.0.0.1:0 passes those on to the demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench

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

demo:
	@.ci/setup demo
	@cargo build --release --locked --bin postern
	@exec "$(TARGET)/release/postern" demo $(AWS_FLAG) $(DEMO_FLAGS)

test:
	@.ci/setup test
ifeq ($(NEXTEST),yes)
	cargo nextest run --workspace --locked
else
	cargo test --workspace --locked --lib --bins --tests
endif
	cargo test --workspace --locked --doc
	@if [ -d tests/e2e ]; then \
		cargo build --locked --bin postern; \
		export PATH="$(CURDIR)/build/bin:$(VENV)/bin:$$PATH" POSTERN="$$(realpath "$(TARGET)/debug/postern")"; \
		echo "pytest tests/e2e"; python -m pytest -q tests/e2e; \
	fi
	@.ci/fuzz $(FUZZ_SECONDS)

check:
	@.ci/setup check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	python3 .ci/audit
	cargo test --locked --quiet --test postern architecture::

bench:
	cargo bench --workspace --locked
