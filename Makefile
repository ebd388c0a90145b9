# Entry points. `make help` lists them.

PYTHON ?= python3
CORPUS ?= demo
TEST_CORPUS ?=
# Not from the environment, where they may be the machine's.
NAME :=
TARGET := valence
PRESET ?= default
PROTOCOL ?= holdout
FOLDS ?= 6
SEED ?= 0
SEEDS ?= 3
EPOCHS ?= 20
PRECISION ?= float32
RANGE ?=
# Not from the environment, where it is the width of a terminal.
COLUMNS :=
unexport COLUMNS
JOBS ?=
TIME_LIMIT ?=
PROFILE ?=
BUDGET ?= 20
TUNED ?=
ENCODER ?=
LAYER ?= auto
TORCH ?= auto

# A misspelt variable would silently do nothing.
VARIABLES := PYTHON CORPUS TEST_CORPUS TARGET COLUMNS NAME PRESET PROTOCOL FOLDS SEED SEEDS EPOCHS PRECISION RANGE JOBS TIME_LIMIT PROFILE BUDGET TUNED ENCODER LAYER TORCH
SPACE := $(subst ,, )
GIVEN := $(foreach word,$(subst \$(SPACE),,$(MAKEOVERRIDES)),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
UNKNOWN := $(filter-out $(VARIABLES),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error There is no variable $(firstword $(UNKNOWN)).$(shell $(PYTHON) -c 'import difflib, sys; \
  found = difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1); print(f" Did you mean {found[0]}?" if found else "")' \
  '$(firstword $(UNKNOWN))' $(VARIABLES)) Known: $(VARIABLES))
endif
ifeq ($(filter auto cpu cuda,$(TORCH)),)
$(error TORCH=$(TORCH) was given; expected auto, cpu or cuda)
endif
ifneq ($(filter-out yes no,$(TUNED)),)
$(error TUNED=$(TUNED) was given; expected yes or no)
endif

BIN := .venv/bin
INSTALLED := .venv/installed
# Through the environment, so that a path may hold any character.
export VALENCE_COLUMNS := $(COLUMNS)
export CORPUS TEST_CORPUS TARGET NAME PRESET PROTOCOL FOLDS SEED SEEDS EPOCHS PRECISION RANGE BUDGET ENCODER LAYER
ON := --corpus="$$CORPUS" --test-corpus="$$TEST_CORPUS" --target="$$TARGET" --seed="$$SEED" --epochs="$$EPOCHS" --range="$$RANGE" --columns="$$VALENCE_COLUMNS" $(if $(NAME),--name="$$NAME")
ASKED := $(ON) --preset="$$PRESET" --protocol="$$PROTOCOL" --folds="$$FOLDS" --seeds="$$SEEDS" --precision="$$PRECISION" --encoder="$$ENCODER" --layer="$$LAYER" $(if $(filter yes,$(TUNED)),--tuned)
RUN := $(if $(JOBS),--jobs=$(JOBS)) $(if $(TIME_LIMIT),--time-limit=$(TIME_LIMIT)) $(if $(PROFILE),--profile=$(PROFILE))
# One thread a process: jobs run side by side, and sums come out the same every time.
export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help install encoder report sweep plan check explore test slow test-slurm bench bench-quick example lint notebooks verify verify-across clean

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables of report: CORPUS=$(CORPUS) (several: a,b) TEST_CORPUS=(to test on alone, none) TARGET=$(TARGET) (a report each: valence,arousal) NAME=(after the corpus) PRESET=$(PRESET) PROTOCOL=$(PROTOCOL) (or cv, corpora) FOLDS=$(FOLDS) SEED=$(SEED) SEEDS=$(SEEDS) EPOCHS=$(EPOCHS) PRECISION=$(PRECISION) RANGE=(that of the corpus, else 1,5; or auto; of several 1,5/1,7) COLUMNS=(MEANING=NAME,... of the table, the usual names) JOBS=(all cores) TIME_LIMIT=(seconds a notebook, none) PROFILE=(of workflow/profiles, none) TUNED=(yes: a row for what sweep found best; no) ENCODER=(folder or hub name of a pretrained encoder, none) LAYER=$(LAYER). Of sweep also: BUDGET=$(BUDGET) (trials, or 10min)"

# The build of PyTorch that is installed.
BUILD := $(if $(wildcard .venv/lib/python*/site-packages/torch-*+cpu.dist-info),cpu,cuda)
.PHONY: another-build

# The stamp comes last, so that an interrupted installation is done again.
$(INSTALLED): requirements.lock encoder.lock pyproject.toml $(if $(filter-out auto $(BUILD),$(TORCH)),another-build)
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer, or name one as in \`make PYTHON=python3.12\`."; exit 1; }
	@"$(PYTHON)" workflow/install.py $(TORCH)
	@echo "The weights of the speaker encoder, 16 MB"
	@$(ENCODER_WEIGHTS) || echo "The weights of the speaker encoder could not be fetched. Reports leave out what needs them; \`make encoder\` tries again."
	@# Once, here, and not by the first notebooks that run side by side.
	@echo "Compiling the kernels"
	@$(BIN)/python -c "import valence_lib.models.pooling_kernel, valence_lib.features.pitch"
	@touch $@

install: $(INSTALLED) ## make .venv and install the pinned packages (TORCH=cpu or cuda: the build of PyTorch)

# Weights, and no program: nothing of the package is imported, and it comes without what it depends on.
ENCODER_WEIGHTS = $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r encoder.lock

encoder: $(INSTALLED) ## fetch the weights of the speaker encoder, where the installation could not
	$(ENCODER_WEIGHTS)

report: $(INSTALLED) ## corpus -> trained models, tables, figures and the report, in reports/NAME
	@exec $(BIN)/valence report --stop-with-parent $(ASKED) $(RUN)

sweep: $(INSTALLED) ## tune hyperparameters within BUDGET; `make report TUNED=yes` then reports what was best
	@exec $(BIN)/valence sweep --stop-with-parent $(ON) --budget="$$BUDGET" $(RUN)

plan: $(INSTALLED) ## what `make report` would run now, and why
	@$(BIN)/valence plan $(ASKED)

check: $(INSTALLED) ## read a corpus and print what is in it, without training anything
	@$(BIN)/valence check "$$CORPUS" --test-corpus="$$TEST_CORPUS" --target="$$TARGET" --range="$$RANGE" --columns="$$VALENCE_COLUMNS"

explore: $(INSTALLED) ## open JupyterLab on notebooks/explore.ipynb
	$(BIN)/valence report $(SMALL)
	$(BIN)/jupyter lab notebooks/explore.ipynb

COMMITTED := $(sort $(wildcard notebooks/*.ipynb))
SMALL := --corpus demo --name small --clips-per-speaker 12 --epochs 4 --seeds 1
# nbval executes; the plugin, a module of tests/, compares.
NBVAL := -p nbval_comparison --nbval --nbval-sanitize-with "$(CURDIR)/tests/nbval.cfg"
HAS_WEIGHTS := $(BIN)/python -c 'import sys; from valence_lib.registry import missing_packages; sys.exit(bool(missing_packages(["speaker_encoder"])))'

test: $(INSTALLED) ## the tests, then the committed notebooks with nbval
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not slurm" --cov --cov-report=term:skip-covered --cov-fail-under=90 tests
	$(BIN)/valence report $(SMALL)
	@$(HAS_WEIGHTS) || echo "The committed notebooks are not checked: they show the model that needs the speaker encoder. \`make encoder\` fetches its weights."
	! $(HAS_WEIGHTS) || PYTHONPATH=tests$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python -m pytest -n 2 --dist loadfile $(NBVAL) $(COMMITTED)

slow: $(INSTALLED) ## the slower tests: whole builds, edited, killed at random moments, on full disks
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow tests

# Debian's packages; where they cannot be installed, the tests say that they are skipped.
HAS_SLURM = PATH="$$PATH:/usr/sbin" && command -v munged slurmctld slurmd sbatch >/dev/null
AS_ROOT = $$([ "$$(id -u)" = 0 ] || echo sudo -n)

test-slurm: $(INSTALLED) ## reports made by a real Slurm cluster on this machine, disturbed and resumed
	@$(HAS_SLURM) || { $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -qq --no-install-recommends slurm-wlm munge >/dev/null; } \
	  || echo "Slurm is not installed, and could not be: that takes root, or sudo without a password, on Debian or Ubuntu."
	$(BIN)/python -m pytest -m slurm -s -rs tests/workflow/test_slurm.py

bench: $(INSTALLED) ## measure every stage against the usual tools; renews benchmarks/results.json and the README's table
	$(BIN)/python -m benchmarks

bench-quick: $(INSTALLED) ## the same with small sizes; changes no files
	$(BIN)/python -m benchmarks --quick

example: $(INSTALLED) ## build the demo report, and draw the pages of it that the README shows
	$(BIN)/valence report --stop-with-parent --corpus demo
	$(BIN)/python workflow/example.py

lint: $(INSTALLED) ## ruff (lint and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

notebooks: $(INSTALLED) ## execute the committed notebooks again, on the small profile
	$(BIN)/valence report $(SMALL)
	for notebook in $(COMMITTED); do $(BIN)/valence notebook $$notebook $$notebook || exit; done

verify: $(INSTALLED) ## build the small report again, in a different environment, and compare every byte
	$(BIN)/valence report $(SMALL)
	$(BIN)/python workflow/verify.py $(SMALL)

verify-across: $(INSTALLED) ## the same as other processors compute it: numbers and notebooks within stated tolerances
	$(BIN)/valence report $(SMALL)
	$(BIN)/python workflow/verify.py --across $(SMALL)

clean: ## remove all reports and stored features
	find reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name '*.png' -exec rm -rf {} +
