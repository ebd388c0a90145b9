# The front door. `make help` lists what there is.

PYTHON ?= python3
CORPUS ?= demo
# Not from the environment, where it may be the machine's.
NAME :=
PRESET ?= default
PROTOCOL ?= holdout
FOLDS ?= 6
SEED ?= 0
SEEDS ?= 3
EPOCHS ?= 20
PRECISION ?= float32
RANGE ?= 1,5
JOBS ?=
TIME_LIMIT ?=
PROFILE ?=
BUDGET ?= 20
TUNED ?=
ENCODER ?=
LAYER ?= auto

# A misspelt variable would silently do nothing.
VARIABLES := PYTHON CORPUS NAME PRESET PROTOCOL FOLDS SEED SEEDS EPOCHS PRECISION RANGE JOBS TIME_LIMIT PROFILE BUDGET TUNED ENCODER LAYER
SPACE := $(subst ,, )
GIVEN := $(foreach word,$(subst \$(SPACE),,$(MAKEOVERRIDES)),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
UNKNOWN := $(filter-out $(VARIABLES),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error There is no variable $(firstword $(UNKNOWN)).$(shell $(PYTHON) -c 'import difflib, sys; \
  found = difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1); print(f" Did you mean {found[0]}?" if found else "")' \
  '$(firstword $(UNKNOWN))' $(VARIABLES)) Known: $(VARIABLES))
endif
ifneq ($(filter-out yes no,$(TUNED)),)
$(error TUNED=$(TUNED) was given; expected yes or no)
endif

BIN := .venv/bin
INSTALLED := .venv/installed
# Through the environment, so that a path may hold any character.
export CORPUS NAME PRESET PROTOCOL FOLDS SEED SEEDS EPOCHS PRECISION RANGE BUDGET ENCODER LAYER
ON := --corpus="$$CORPUS" --seed="$$SEED" --epochs="$$EPOCHS" --range="$$RANGE" $(if $(NAME),--name="$$NAME")
ASKED := $(ON) --preset="$$PRESET" --protocol="$$PROTOCOL" --folds="$$FOLDS" --seeds="$$SEEDS" --precision="$$PRECISION" --encoder="$$ENCODER" --layer="$$LAYER" $(if $(filter yes,$(TUNED)),--tuned)
RUN := $(if $(JOBS),--jobs=$(JOBS)) $(if $(TIME_LIMIT),--time-limit=$(TIME_LIMIT)) $(if $(PROFILE),--profile=$(PROFILE))
# One thread a process: jobs run side by side, and sums come out the same every time.
export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help install encoder report sweep plan check explore test slow test-slurm bench bench-quick lint notebooks nbval-across verify verify-across clean

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables of report: CORPUS=$(CORPUS) NAME=(after the corpus) PRESET=$(PRESET) PROTOCOL=$(PROTOCOL) FOLDS=$(FOLDS) SEED=$(SEED) SEEDS=$(SEEDS) EPOCHS=$(EPOCHS) PRECISION=$(PRECISION) RANGE=$(RANGE) JOBS=(all cores) TIME_LIMIT=(seconds a notebook, none) PROFILE=(of workflow/profiles, none) TUNED=(yes: a row for what sweep found best; no) ENCODER=(folder or hub name of a pretrained encoder, none) LAYER=$(LAYER). Of sweep also: BUDGET=$(BUDGET) (trials, or 10min)"

# The stamp comes last, so that a cut-off installation is done again.
$(INSTALLED): requirements.lock encoder.lock pyproject.toml
	@rm -f $@
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; {sys.executable} is {sys.version}. Give another: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(ENCODER_WEIGHTS) || echo "The weights of the speaker encoder could not be fetched. Reports leave out what needs them; \`make encoder\` tries again."
	@# Compiled once, here, and not by the first notebooks that run side by side.
	$(BIN)/python -c "import valence_lib.pooling, valence_lib.pitch"
	@touch $@

install: $(INSTALLED) ## make .venv and install the pinned packages

# Weights, and no program: nothing of the package is imported, and it comes without what it depends on.
ENCODER_WEIGHTS = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r encoder.lock

encoder: $(INSTALLED) ## fetch the weights of the speaker encoder, where the installation could not
	$(ENCODER_WEIGHTS)

report: $(INSTALLED) ## corpus -> trained models, tables, figures and the report, in reports/NAME
	@exec $(BIN)/valence report --stop-with-parent $(ASKED) $(RUN)

sweep: $(INSTALLED) ## tune hyperparameters within BUDGET; `make report TUNED=yes` then reports what was best
	@exec $(BIN)/valence sweep --stop-with-parent $(ON) --budget="$$BUDGET" $(RUN)

plan: $(INSTALLED) ## what `make report` would run now, and why
	@$(BIN)/valence plan $(ASKED)

check: $(INSTALLED) ## read a corpus and print what is in it, without training anything
	@$(BIN)/valence check "$$CORPUS" --range="$$RANGE"

explore: $(INSTALLED) ## open JupyterLab on notebooks/explore.ipynb
	$(BIN)/valence report $(SMALL)
	$(BIN)/jupyter lab notebooks/explore.ipynb

COMMITTED := $(sort $(wildcard notebooks/*.ipynb))
SMALL := --corpus demo --name small --clips-per-speaker 12 --epochs 4 --seeds 1
# nbval executes; the plugin, a module of tests/, compares.
NBVAL := -p nbval_teeth --nbval --nbval-sanitize-with "$(CURDIR)/tests/nbval.cfg"
ACROSS := reports/.across
HAS_WEIGHTS := $(BIN)/python -c 'import sys; from valence_lib.registry import missing_packages; sys.exit(bool(missing_packages(["speaker_encoder"])))'

test: $(INSTALLED) ## the tests, then the committed notebooks with nbval
	$(BIN)/python -m pytest -m "not slow and not slurm" --cov --cov-report=term:skip-covered --cov-fail-under=90 tests
	$(BIN)/valence report $(SMALL)
	@$(HAS_WEIGHTS) || echo "The committed notebooks are not checked: they show the model that needs the speaker encoder. \`make encoder\` fetches its weights."
	! $(HAS_WEIGHTS) || PYTHONPATH=tests$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python -m pytest $(NBVAL) $(COMMITTED)

slow: $(INSTALLED) ## the slower tests: whole builds, edited, killed at random moments, on full disks
	$(BIN)/python -m pytest -m slow -s tests

# Debian's packages; where they cannot be installed, the tests say that they are skipped.
HAS_SLURM = PATH="$$PATH:/usr/sbin" && command -v munged slurmctld slurmd sbatch >/dev/null
AS_ROOT = $$([ "$$(id -u)" = 0 ] || echo sudo -n)

test-slurm: $(INSTALLED) ## reports made by a real Slurm cluster on this machine, disturbed and resumed
	@$(HAS_SLURM) || { $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -qq --no-install-recommends slurm-wlm munge >/dev/null; } \
	  || echo "Slurm is not installed, and could not be: that takes root, or sudo without a password, on Debian or Ubuntu."
	$(BIN)/python -m pytest -m slurm -s -rs tests/test_slurm.py

bench: $(INSTALLED) ## measure every stage beside the ways used now; renews benchmarks/results.json and the README's table
	$(BIN)/python -m benchmarks

bench-quick: $(INSTALLED) ## the same with small sizes, kept nowhere: shows that it still runs
	$(BIN)/python -m benchmarks --quick

lint: $(INSTALLED) ## ruff (lint and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

notebooks: $(INSTALLED) ## execute the committed notebooks again, on the small profile
	$(BIN)/valence report $(SMALL)
	for notebook in $(COMMITTED); do $(BIN)/valence notebook $$notebook $$notebook || exit; done

nbval-across: $(INSTALLED) ## the committed notebooks with nbval as on an older processor, from preprocessing on
	@# In a copy: a finished training is not done again, and no report here is to be mixed from two ways of computing.
	rm -rf $(ACROSS) && mkdir -p $(ACROSS)/reports
	cp -Rp valence_lib workflow notebooks requirements.lock $(ACROSS)
	cd $(ACROSS) && export ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=default PYTHONPATH="$$PWD:$(CURDIR)/tests" && \
	  "$(CURDIR)/$(BIN)/python" -m valence_lib report $(SMALL) && \
	  "$(CURDIR)/$(BIN)/python" -m pytest $(NBVAL) $(COMMITTED)
	rm -rf $(ACROSS)

verify: $(INSTALLED) ## build a small report twice, under unlike surroundings, and compare every byte
	$(BIN)/python workflow/verify.py

verify-across: $(INSTALLED) ## the same as other processors would compute it: the numbers within stated tolerances
	$(BIN)/python workflow/verify.py --across

clean: ## remove all reports and stored features
	find reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name '*.png' -exec rm -rf {} +
