# Everything happens in this checkout: programs in .venv and .tools, data in var.

PYTHON ?= python3
UV = .tools/bin/uv
RUN = .venv/bin/python
# Not locked: which build is right depends on the machine, and pip may be set up to find another.
TORCH ?= torch==2.13.0
LOCK = $(UV) pip compile --quiet pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-header

# Whole platforms mostly wait: beside them there is time for the rest.
SHARED ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

export PYTHON

.PHONY: help demo up test parity fuzz fuzzapi overhead fairness queue gpu card chaos crashes drills outages rolling soak lock samples clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile

demo: .venv/installed ## Read the sample documents with a platform of its own, then stop it
	@.venv/bin/octavo demo

up: .venv/installed ## Run the platform on this machine until Ctrl-C; options in ARGS="--port 0"
	@.venv/bin/octavo up $(ARGS)

test: .venv/installed-deepseek ## Lint, check types, run all tests; options of pytest in ARGS="-k NAME"
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest $(SHARED) $(ARGS)

parity: .venv/installed-deepseek ## Hold the DeepSeek-OCR network against transformers' own
	$(RUN) -m pytest tests/parity $(ARGS)

fuzz: .venv/installed-dev ## Break documents at random, CASES=100000 of them, from number FIRST=0 on
	OCTAVO_FUZZ_CASES=$(or $(CASES),100000) OCTAVO_FUZZ_FIRST=$(or $(FIRST),0) \
		$(RUN) -m pytest tests/unit/test_fuzz.py

fuzzapi: .venv/installed-dev ## Ask the API much more that its document allows, and forbids; EXAMPLES=2000 of each kind
	OCTAVO_FUZZ_EXAMPLES=$(or $(EXAMPLES),300) $(RUN) -m pytest tests/integration/test_fuzz_api.py $(ARGS)

overhead: .venv/installed-dev ## Measure what the platform costs beside the reading; JSON=PATH keeps it
	@$(RUN) -m benchmarks.overhead $(if $(JSON),--json "$(JSON)")

fairness: .venv/installed-dev ## Measure how long small jobs take behind large ones; JSON=PATH keeps it
	@$(RUN) -m benchmarks.fairness $(if $(JSON),--json "$(JSON)")

queue: .venv/installed-dev ## Measure the queue with 200,000 waiting pages; JSON=PATH keeps it
	@$(RUN) -m benchmarks.queue $(if $(JSON),--json "$(JSON)")

gpu: .venv/installed-deepseek ## Measure DeepSeek-OCR on a card beside transformers: MODEL=1 JSON=PATH
	@$(RUN) -m benchmarks.deepseek --model $(or $(MODEL),1) $(if $(JSON),--json "$(JSON)")

card: .venv/installed-deepseek ## The whole platform on cards, engine and worker killed: JSON=PATH, ARGS="--tiny"
	@$(RUN) -m benchmarks.card $(if $(JSON),--json "$(JSON)") $(ARGS)

chaos: .venv/installed-dev ## Break the platform at work and count: SEED=1 SEEDS=1 JOBS=1000 FAULTS=50 JSON=PATH
	@$(RUN) -m benchmarks.chaos --seed $(or $(SEED),1) --seeds $(or $(SEEDS),1) \
		--jobs $(or $(JOBS),1000) --faults $(or $(FAULTS),50) \
		$(if $(KEEP),--keep "$(KEEP)") $(if $(JSON),--json "$(JSON)")

crashes: .venv/installed-dev ## Die at every point between two effects, KILLS=20 times each, and look what is left
	OCTAVO_CRASH_KILLS=$(or $(KILLS),20) $(RUN) -m pytest tests/acceptance/test_crash_points.py

drills: .venv/installed-dev ## How soon work of the dead goes on, and late writes: KILLS=100 WRITES=100 JSON=PATH
	@$(RUN) -m benchmarks.chaos.drills --kills $(or $(KILLS),100) --writes $(or $(WRITES),100) \
		$(if $(JSON),--json "$(JSON)")

soak: .venv/installed-dev ## A steady load for long, and what grows: MINUTES=20 JSON=PATH
	@$(RUN) -m benchmarks.soak --minutes $(or $(MINUTES),20) $(if $(JSON),--json "$(JSON)")

outages: .venv/installed-dev ## Measure what an outage of each server costs; JSON=PATH, ARGS="--seconds 10"
	@$(RUN) -m benchmarks.outages $(if $(JSON),--json "$(JSON)") $(ARGS)

rolling: .venv/installed-dev ## Restart every process under load and count who noticed; JSON=PATH
	@$(RUN) -m benchmarks.rolling $(if $(JSON),--json "$(JSON)") $(ARGS)

lock: $(UV) ## Choose the newest versions that pyproject.toml allows
	$(LOCK) --upgrade --extra local --output-file requirements.lock
	$(LOCK) --upgrade --extra dev --output-file requirements-dev.lock
	$(LOCK) --upgrade --extra parity --constraint requirements-dev.lock \
		--override deploy/without-torch.txt --output-file requirements-deepseek.lock

samples: $(UV) ## Make the sample documents again, from deploy/samples/texts.py
	$(UV) run --quiet --no-project --isolated --python $(PYTHON) --with pillow==13.0.0 \
		--with pylopdf-fonts-zh-cn==0.1.1 --with typst==0.15.0 python -m deploy.samples.make

clean: ## Remove what was installed and built; var, with its documents, stays
	rm -rf .venv .tools build dist octavo.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . \( -path ./.git -o -path ./var \) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# The stamps are newer than what they were made from; an interrupted run leaves none.
.venv/installed: requirements.lock pyproject.toml deploy/install.sh
	@echo "Installing into .venv ..."
	@sh deploy/install.sh requirements.lock
	@touch $@

.venv/installed-dev: requirements-dev.lock pyproject.toml deploy/install.sh
	@echo "Installing into .venv ..."
	@sh deploy/install.sh requirements-dev.lock
	@touch $@

.venv/installed-deepseek: .venv/installed-dev requirements-deepseek.lock
	@echo "Installing the DeepSeek-OCR engine into .venv ..."
	@sh deploy/install.sh requirements-deepseek.lock
	@$(PYTHON) -m pip --python $(RUN) install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

$(UV):
	$(PYTHON) -m pip install --quiet --target .tools uv==0.13.8
