# Everything that people and CI run, on a fresh Debian 12 with Rust and Python 3.11. Each target installs what it
# needs and doesn't find: apt packages (with sudo where there is one), cargo tools, a Python environment in .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# Targets share cargo's lock and the terminal, but for those that are made with TOGETHER=1.
ifndef TOGETHER
.NOTPARALLEL:
endif

NEXTEST := 0.9.143
DENY := 0.20.2
UV := 0.13.9
MATURIN := 1.16.0

ROOT := $(CURDIR)
TARGET := $(or $(CARGO_TARGET_DIR),$(ROOT)/target)
VENV := $(ROOT)/.venv
STOCK := $(ROOT)/.venv-stock
MLFLOW2 := $(ROOT)/.venv-mlflow2
BIG := $(ROOT)/.venv-big
TRITON := $(ROOT)/.venv-triton
KSERVE_CLIENT := $(ROOT)/.venv-kserve
OUTSIDE := $(ROOT)/.venv-outside
PYTHON ?= python3
# uv stays with the Python that is there, and trusts whom the system trusts.
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := 1
# Cargo where rustup puts it, also for shells that don't know yet.
export PATH := $(VENV)/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
# $(call apt,packages): installs them, or says how.
define apt
if [ "$$(id -u)" != 0 ] && [ -z "$(SUDO)" ]; then \
  echo "error: missing: $(1). As root: apt-get install $(1)" >&2; exit 1; fi; \
echo "── installing $(1)"; \
$(SUDO) apt-get update -qq; \
$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1)
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-big lint bench soak wheel tools base postgres

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: base $(VENV)/.uv ## The whole story on real data: train, promote, break, roll back (ARGS="--rps 5" is passed on)
	cargo build --release --locked --package lockgate
	"$(TARGET)/release/lockgate" demo $(ARGS)

test: base postgres ## What CI runs: lint, build, all tests, generated pages, end-to-end tests with real clients
	@# The Python environments are downloads for the most part: they are made while cargo compiles.
	$(MAKE) --no-print-directory TOGETHER=1 --jobs=2 checks environments
	$(MAKE) --no-print-directory e2e

# Cargo's jobs are its own: it must not look for those of a make that doesn't hand them on.
.PHONY: checks
checks: tools
	env -u MAKEFLAGS -u MFLAGS cargo xtask ci

.PHONY: environments
environments: $(VENV)/.clients $(STOCK)/.installed $(MLFLOW2)/.installed $(TRITON)/.installed $(OUTSIDE)/.installed $(if $(KSERVE),$(KSERVE_CLIENT)/.installed)

.PHONY: e2e
e2e: base postgres environments
	@# The whole workspace, as `xtask ci` does: fewer packages would mean other features, and all to be built anew.
	cargo build --locked --workspace
	$(MAKE) --no-print-directory e2e-mlflow
	@# Each folder has a conftest of its own. Alone: what is measured in here is to be Lockgate's.
	LOCKGATE_BIN="$(TARGET)/debug/lockgate" OIP_TRITON="$(TRITON)/bin/python" OIP_KSERVE="$(if $(KSERVE),$(KSERVE_CLIENT)/bin/python)" \
	  OUTSIDE_PYTHON="$(OUTSIDE)/bin/python" \
	  "$(VENV)/bin/python" -m pytest tests/e2e -q $(ARGS)

# tests/mlflow in parts, two at a time, the longest first; what a part says is shown when it is done. On PostgreSQL run the tests for
# which the engine can matter. Each takes most of one core for its Python.
MLFLOW_PARTS := mlflow-sqlite mlflow-clients mlflow-moving mlflow-postgres
APART := tests/mlflow/test_mlflow_clients.py tests/mlflow/test_mlflow_moving.py
.PHONY: e2e-mlflow $(MLFLOW_PARTS)
e2e-mlflow:
	$(MAKE) --no-print-directory TOGETHER=1 --jobs=2 --keep-going --output-sync=target $(MLFLOW_PARTS)

$(MLFLOW_PARTS): ENGINE := sqlite
mlflow-sqlite: WHAT := tests/mlflow $(addprefix --ignore=,$(APART))
mlflow-clients: WHAT := tests/mlflow/test_mlflow_clients.py
mlflow-moving: WHAT := tests/mlflow/test_mlflow_moving.py
mlflow-postgres: WHAT := tests/mlflow
mlflow-postgres: ENGINE := postgres
$(MLFLOW_PARTS):
	LOCKGATE_TEST_ENGINE=$(ENGINE) LOCKGATE_BIN="$(TARGET)/debug/lockgate" MLFLOW_STOCK="$(STOCK)/bin/mlflow" \
	MLFLOW_2="$(MLFLOW2)/bin/python" MLFLOW_318="$(STOCK)/mlflow-3.18" \
	  "$(VENV)/bin/python" -m pytest $(WHAT) -q --durations=15 --durations-min=5 $(ARGS)

test-big: base $(BIG)/.installed ## PyTorch and TensorFlow with stock MLflow: 6 GB of disk, so not in CI (LOCKGATE_BIN=… spares the build)
	[ -n "$${LOCKGATE_BIN:-}" ] || cargo build --locked --package lockgate
	LOCKGATE_BIN="$${LOCKGATE_BIN:-$(TARGET)/debug/lockgate}" LOCKGATE_TEST_BIG=1 CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=2 \
	  "$(BIG)/bin/python" -m pytest tests/mlflow/test_mlflow_big_wheels.py -q -W ignore $(ARGS)

lint: tools ## Format, clippy, tidy, licences
	cargo xtask lint

bench: base $(VENV)/.clients ## Measure beside other servers (BENCH=tracking: MLflow's; benches/)
	cargo build --release --locked --package lockgate
	LOCKGATE_BIN="$(TARGET)/release/lockgate" "$(VENV)/bin/python" "benches/$(or $(BENCH),run).py" $(ARGS)

soak: base $(VENV)/.clients ## Run under traffic and faults for a long time (benches/)
	cargo build --release --locked --package lockgate
	LOCKGATE_BIN="$(TARGET)/release/lockgate" "$(VENV)/bin/python" benches/soak.py $(ARGS)

wheel: base $(VENV)/.uv ## Python wheel that carries the binary, into dist/
	"$(VENV)/bin/uv" pip install --quiet --python "$(VENV)/bin/python" maturin==$(MATURIN)
	cd python && "$(VENV)/bin/maturin" build --release --locked --out "$(ROOT)/dist"

# A C compiler (SQLite, rustls), git (commits of releases), a Python with venv.
base:
	@command -v cargo >/dev/null || { echo "error: no cargo; install Rust from https://rustup.rs" >&2; exit 1; }
	@missing=(); \
	command -v cc >/dev/null || missing+=(build-essential); \
	command -v git >/dev/null || missing+=(git); \
	command -v $(PYTHON) >/dev/null || missing+=(python3); \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv); \
	[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates); \
	if [ $${#missing[@]} -gt 0 ]; then $(call apt,$${missing[*]}); fi

# The tests start clusters of their own; only the programs are needed.
postgres:
	@if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then $(call apt,postgresql); fi

tools: base
	@cargo nextest --version >/dev/null 2>&1 || env -u MAKEFLAGS -u MFLAGS cargo install --locked cargo-nextest --version $(NEXTEST) \
	  || echo "cargo-nextest can't be had; cargo test will do" >&2
	@# One before 0.18 doesn't read our deny.toml.
	@cargo deny --version 2>/dev/null | grep -qE ' 0\.(1[89]|[2-9][0-9])\.' \
	  || env -u MAKEFLAGS -u MFLAGS CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --force --debug cargo-deny --version $(DENY)

$(VENV)/.uv: | base
	[ -x "$(VENV)/bin/pip" ] || $(PYTHON) -m venv --clear "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet uv==$(UV)
	touch $@

$(STOCK)/.installed: tests/stock.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(STOCK)"
	"$(VENV)/bin/uv" pip install --quiet --python "$(STOCK)/bin/python" -r tests/stock.txt
	@# Its parts are not on every index, so the whole goes over the dependencies of the release before.
	"$(VENV)/bin/uv" pip install --quiet --python "$(STOCK)/bin/python" --no-deps --target "$(STOCK)/mlflow-3.18" mlflow==3.18.0
	touch $@

$(MLFLOW2)/.installed: tests/mlflow2.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(MLFLOW2)"
	"$(VENV)/bin/uv" pip install --quiet --python "$(MLFLOW2)/bin/python" -r tests/mlflow2.txt
	touch $@

# Without uv's cache, so that removing the folder gives all of its disk back.
$(BIG)/.installed: tests/big.txt tests/big-excludes.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(BIG)"
	"$(VENV)/bin/uv" pip install --quiet --no-cache --python "$(BIG)/bin/python" -r tests/big.txt --excludes tests/big-excludes.txt
	touch $@

$(TRITON)/.installed: tests/triton.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(TRITON)"
	"$(VENV)/bin/uv" pip install --quiet --python "$(TRITON)/bin/python" -r tests/triton.txt
	touch $@

$(KSERVE_CLIENT)/.installed: tests/kserve.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(KSERVE_CLIENT)"
	"$(VENV)/bin/uv" pip install --quiet --python "$(KSERVE_CLIENT)/bin/python" -r tests/kserve.txt
	touch $@

$(OUTSIDE)/.installed: tests/outside.txt $(VENV)/.uv
	"$(VENV)/bin/uv" venv --quiet --clear --python $(PYTHON) "$(OUTSIDE)"
	"$(VENV)/bin/uv" pip install --quiet --python "$(OUTSIDE)/bin/python" -r tests/outside.txt
	touch $@

$(VENV)/.clients: tests/requirements.txt $(VENV)/.uv
	"$(VENV)/bin/uv" pip install --quiet --python "$(VENV)/bin/python" -r tests/requirements.txt
	touch $@
