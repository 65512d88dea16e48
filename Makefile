# Everything runs from a fresh clone: each target first makes what it needs in .venv.

PYTHON ?= python3
VENV ?= .venv
# The tests that `make test` runs; all of them when it is empty.
TESTS ?=
# How many files of tests run at a time; 0 runs them in one process.
WORKERS ?= 2
pyenv := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# A Python that is named, as in PYTHON=python3.12, may also be one of pyenv's, which puts only the selected ones on PATH.
# When .venv has another version it gets an environment of its own, .venv-3.12.
ifneq ($(origin PYTHON),file)
named := $(call version,$(PYTHON))
ifeq ($(named),)
override PYTHON := $(or $(lastword $(wildcard $(pyenv)/*/bin/$(notdir $(PYTHON)))),$(PYTHON))
named := $(call version,$(PYTHON))
endif
ifeq ($(origin VENV),file)
ifneq ($(wildcard .venv/bin/python),)
ifneq ($(named),$(call version,.venv/bin/python))
VENV := .venv-$(or $(named),$(notdir $(PYTHON)))
endif
endif
endif
endif

RUN := $(VENV)/bin/python
WEB := apps/echo/web
SOURCES := moqt_trio apps tests bench fuzz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

.PHONY: echo
echo: $(VENV)/.installed-echo ## run the echo service and its client over both transports
	@$(RUN) -m apps.demos.echo

.PHONY: echo-all
echo-all: $(VENV)/.installed-echo ## echo on every version over both transports, and print a table
	@$(RUN) -m apps.demos.versions

.PHONY: test
test: $(VENV)/.installed-test ## run every test; with another Python: make test PYTHON=python3.13
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

.PHONY: web
web: $(WEB)/node_modules/.installed ## bundle the script of the echo page
	npm --prefix $(WEB) run --silent build

.PHONY: browser
browser: web ## install Chromium and the packages of the browser tests
	@command -v chromium >/dev/null || test "$$(id -u)" = 0 || { echo "make: there is no Chromium here, and only root may install it: sudo apt install chromium" >&2; exit 1; }
	@command -v chromium >/dev/null || command -v apt-get >/dev/null || { echo "make: there is no Chromium here, and no apt-get to install it; install it as 'chromium' on PATH" >&2; exit 1; }
	command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; }

.PHONY: peers
peers: $(VENV)/peers/.installed ## install the peers that need a later Python, and build the one that needs Go
	@command -v go >/dev/null || { echo "make: no Go here, which a peer needs; install Go 1.26 or later" >&2; exit 1; }
	cd tests/peers/webtransport_go && go build -o /dev/null .

.PHONY: relay-interop
relay-interop: moq-relay-named $(VENV)/.installed-test ## test against moq-relay, the program that MOQ_RELAY names
	MOQ_RELAY="$$(command -v "$(MOQ_RELAY)")" $(RUN) -m pytest -n $(WORKERS) --dist loadfile tests/interop/relay

.PHONY: moq-relay-named
moq-relay-named:
	@command -v "$(MOQ_RELAY)" >/dev/null || { echo "make: MOQ_RELAY names no program$(if $(MOQ_RELAY),: $(MOQ_RELAY)); build moq-relay, which takes some minutes: cargo install moq-relay; then: make relay-interop MOQ_RELAY=moq-relay" >&2; exit 1; }

.PHONY: lint
lint: $(VENV)/.installed ## check style and format
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)

.PHONY: types
types: $(VENV)/.installed ## check types, with mypy and pyright
	$(RUN) -m mypy
	$(RUN) -m pyright --pythonpath $(RUN)

.PHONY: cov
cov: $(VENV)/.installed ## run every test, and fail if branch coverage is too low
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=
	$(RUN) -m coverage json -q -o .coverage.json
	$(RUN) tests/coverage_gate.py .coverage.json

.PHONY: bench
bench: $(VENV)/.installed ## measure throughput, round trips, memory, and priorities on a slow link, beside baselines, costs among many, and a relay
	$(RUN) -m bench

.PHONY: bench-relay
bench-relay: $(VENV)/.installed ## measure a relay with up to 100 viewers, and 1,000 broadcasts announced to 50 peers; five minutes
	$(RUN) -m bench.relay

.PHONY: soak
soak: $(VENV)/.installed ## open 86,400 sessions, send a million groups, hold 1,000 sessions, repeat each flood; three quarters of an hour
	$(RUN) -m bench.soak

.PHONY: trace
trace: $(VENV)/.installed ## count the calls and files that one frame and one subscription pass
	$(RUN) -m bench.trace

.PHONY: fuzz
fuzz: $(VENV)/.installed ## feed a million mutated messages to every reader of a peer's bytes
	$(RUN) -m fuzz

.PHONY: docs
docs: $(VENV)/.installed-docs ## build the documentation into site/
	$(RUN) -m zensical build --strict --config-file mkdocs.yml

.PHONY: clean
clean: ## remove everything that these targets made
	rm -rf .venv .venv-* $(VENV) $(WEB)/build $(WEB)/node_modules .cache site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or later, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or later is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "make: making an environment of $$($(PYTHON) -V) in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# What the library needs, and nothing else: 60 MB.
$(VENV)/.installed-echo: pyproject.toml | $(VENV)/bin/python
	@echo "make: installing moqt_trio and what it needs into $(VENV) (60 MB, this once)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@echo "make: installing what the tests need into $(VENV) (140 MB, this once)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test,interop]'
	@touch $@ $(VENV)/.installed-echo

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "make: installing what tests and checks need into $(VENV) (570 MB, this once)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev,interop]'
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed-echo

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

PEERS_PYTHONS := $(PYTHON) python3.14 python3.13 python3.12 $(wildcard $(pyenv)/3.1[2-9]*/bin/python)

$(VENV)/peers/.installed: tests/peers/requirements.txt | $(VENV)/bin/python
	@for python in $(PEERS_PYTHONS); do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then exec $$python -m venv $(VENV)/peers; fi; \
	done; echo "make: no Python 3.12 or later here, which these peers need; install one, or name it: make peers PYTHON=python3.12" >&2; exit 1
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/peers/requirements.txt
	@touch $@

$(WEB)/node_modules/.installed: $(WEB)/package.json $(WEB)/package-lock.json
	@command -v npm >/dev/null || { echo "make: no npm here; install Node.js 20 or later" >&2; exit 1; }
	npm --prefix $(WEB) ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
