# Every target that needs something installed installs it first: a fresh machine needs no other step.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
# More for pytest: make test PYTEST_ARGS="-k frame -x"
PYTEST_ARGS ?=
# Tests that run side by side. Most of them wait most of the time: two take half as long as one, on
# two cores too.
WORKERS ?= 2

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what the agent needs (root; Debian or Ubuntu; safe to repeat)
	@deploy/setup.sh run

.PHONY: setup-test
setup-test: ## Install what tests and checks need on top of that
	@deploy/setup.sh test

.PHONY: demo
demo: setup ## Checkpoint a running pod over HTTP, kill it, restore it, show the figures
	@$(PYTHON) -m bench.demo

.PHONY: test
test: setup-test ## Run all tests: real runc, real CRIU (root)
	$(PYTHON) -m pytest tests -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: test-system
test-system: ## Install it on a whole Debian 13 in qemu and prove it under systemd (root, x86-64)
	@deploy/setup.sh system
	@$(PYTHON) -m tests.system $(SYSTEM_ARGS)

.PHONY: check
check: setup-test ## Format, lint, types, layers, shell scripts, lock files, manifests
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy --strict agent tests bench
	.venv/bin/lint-imports
	shellcheck -x deploy/*.sh deploy/node/*.sh .ci/run
	$(PYTHON) deploy/check_lock.py
	$(PYTHON) deploy/proto.py --check
	$(PYTHON) deploy/contract.py
	$(PYTHON) deploy/check_manifests.py

.PHONY: bench
bench: setup-test ## Measure beside runc + tar, and write bench/RESULTS.md
	$(PYTHON) -m bench

.PHONY: bench-scale
bench-scale: setup-test ## Measure the API with 1,000 nodes and 1,000,000 actions, into bench/RESULTS.md
	$(PYTHON) -m bench.scale

# Where there is no network nothing is installed: what lies here already has to do. Without that
# Python's packages (-S), of which one may be called `tests`, too.
GPU_PYTHON = $$($(PYTHON) -c '' 2>/dev/null && echo $(PYTHON) || echo python3) -S

.PHONY: test-gpu
test-gpu: ## Check real GPU processes bit by bit, where there are a GPU and PyTorch
	@$(GPU_PYTHON) -m tests.gpu

.PHONY: bench-gpu
bench-gpu: ## Measure checkpoints of GPU memory, and write bench/GPU_RESULTS.md
	@$(GPU_PYTHON) -m bench.gpu

.PHONY: proto
proto: setup-test ## Generate agent/pb from proto/ again
	$(PYTHON) deploy/proto.py

.PHONY: fmt
fmt: setup-test ## Format the code and repair what ruff can repair
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

.PHONY: install
install: setup ## Install daemon and API with their systemd units (PREFIX=/opt/checkpoint-agent)
	@deploy/install.sh install

.PHONY: uninstall
uninstall: ## Remove what install has put there; settings and checkpoints stay
	@deploy/install.sh uninstall

.PHONY: image
image: ## Build the container image (IMAGE=checkpoint-agent:dev, with docker or podman)
	@$(or $(BUILDER),$(shell command -v docker || command -v podman || echo docker)) build \
		--file deploy/Dockerfile --tag $(or $(IMAGE),checkpoint-agent:dev) .

.PHONY: manifests
manifests: setup-test ## Print what deploy/kubernetes comes to (OVERLAY=examples/s3)
	@.tools/kubectl/bin/kubectl kustomize deploy/kubernetes/$(or $(OVERLAY),examples/s3)

.PHONY: lock
lock: ## Pin the dependencies of pyproject.toml again (needs uv; UPGRADE=1 takes newer ones)
	@deploy/lock.sh

.PHONY: clean
clean: ## Remove what was installed, built or cached here; checkpoints in var/ stay
	rm -rf .venv .tools build dist .cache *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find agent tests bench deploy -name __pycache__ -type d -prune -exec rm -rf {} +
