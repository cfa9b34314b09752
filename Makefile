# Everything starts from a bare clone with python3, pip, make and git.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Threads that spin while they wait are very slow where other programs use the cores as well.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*?## "} {printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: install
install: $(STAMP) ## Make .venv with exactly the locked packages

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing the locked packages (about 3 GB the first time) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --config-setting editable_mode=compat -e .
	@touch $@

.PHONY: demo
demo: install ## Run the main job on the synthetic cabin (BACKBONE=video_swin|timesformer|mvit|vit for one of its own)
	@$(BIN)/python train.py fit --config configs/demo.yaml --replace_run true \
		--run runs/demo$(if $(BACKBONE),-$(BACKBONE)) $(if $(BACKBONE),--model.backbone $(BACKBONE)_demo)

.PHONY: test
test: install ## Run the default test suite, a process per core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: test-slow
test-slow: install ## Run the tests that take minutes
	@$(BIN)/python -m pytest -m slow

.PHONY: lint
lint: install ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: tree
tree: ## Renew the tree in CONTRIBUTING.md
	@$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -m tests.tree

.PHONY: lock
lock: ## Renew requirements.lock (needs uv); it holds hashes and no registry address
	@uv pip compile pyproject.toml --extra dev --extra train --extra explain --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements.lock

.PHONY: clean
clean: ## Delete caches (not .venv, data or runs)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
