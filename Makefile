# Everything runs from a fresh clone: each target first makes what it needs in .venv.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
WEB := apps/echo/web
SOURCES := moqt_trio apps tests bench fuzz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

.PHONY: echo
echo: $(VENV)/.installed ## run the echo service and its client over both transports
	@$(RUN) -m apps.demos.echo

.PHONY: echo-all
echo-all: $(VENV)/.installed ## echo on every version over both transports, and print a table
	@$(RUN) -m apps.demos.versions

.PHONY: test
test: $(VENV)/.installed ## run every test
	$(RUN) -m pytest

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
	$(RUN) -m pytest --cov --cov-report=
	$(RUN) -m coverage json -q -o .coverage.json
	$(RUN) tests/coverage_gate.py .coverage.json

.PHONY: bench
bench: $(VENV)/.installed ## measure throughput, round trips, memory, and priorities on a slow link, beside baselines, and costs among many
	$(RUN) -m bench

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
	rm -rf $(VENV) $(WEB)/build $(WEB)/node_modules .cache site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or later, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or later is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev,interop]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# pyenv puts only the selected versions on PATH.
PEERS_PYTHONS := $(PYTHON) python3.14 python3.13 python3.12 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[2-9]*/bin/python)

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
