# The commands a person needs; `make help` lists them. HACKING.md says when to use which.
SHELL := /bin/bash
PYTEST := .venv/bin/pytest
STORE ?= build/store
FUZZ_SECONDS ?= 60
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help setup check test demo bench soak fuzz clean lock lint okd

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install Debian packages and the Python environment (idempotent)
	@scripts/setup

lint: setup ## formatter, linters, types, import contract, Python 3.9 for the agent's rooms
	.venv/bin/ruff format --check -q src tests
	.venv/bin/ruff check -q src tests
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/vermin -q --no-tips --eval-annotations --backport dataclasses --backport typing \
	    -t=3.9- --violations src/strata/core src/strata/oci src/strata/ostree \
	    src/strata/node $$(scripts/agent-modules)

check: lint ## the inner loop: linters and the quick tiers, under 90 s
	$(PYTEST) -q -m "unit or property"

test: lint ## everything but bench and soak
	$(PYTEST) -n 2 --no-loadscope-reorder -m "not bench and not soak"

demo: setup ## build the three layers and overlay the node layer on a running system
	@scripts/demo "$(STORE)"

bench: setup ## measure, against peers in the same run
	$(PYTEST) -q -s -m bench

soak: setup ## the long repetitions: killed at random moments, over and over
	$(PYTEST) -m soak

fuzz: setup ## fuzz every parser of untrusted input, FUZZ_SECONDS each (60)
	@mkdir -p build/fuzz
	@for target in tar compressed objects documents references archive; do \
	    echo "fuzz: $$target" && (cd build/fuzz && ../../.venv/bin/python \
	        ../../tests/fuzz/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS)) || exit 1; done

okd: ## carry out docs/okd.md with the public definitions checked out in DIR
	scripts/okd-check "$(DIR)"

lock: ## pin the Python dependencies anew (needs uv)
	uv pip compile pyproject.toml --group dev --generate-hashes --python-version 3.11 \
	    --no-annotate --custom-compile-command "make lock" -q --upgrade -o requirements.lock

clean: ## remove everything made by demo and builds
	@if [ -x .venv/bin/strata ] && [ -e "$(STORE)/oci-layout" ]; then .venv/bin/strata clean --store "$(STORE)"; fi
	rm -rf build

.PHONY: agent
agent: setup ## pack the agent into build/strata-node.pyz
	@mkdir -p build
	.venv/bin/python -m strata.node.pack build/strata-node.pyz
