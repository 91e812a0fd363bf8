# `make help` lists what people and CI type. Needs Python >= 3.11 and, but for the fast tests, a C/C++ compiler;
# everything else goes into .venv.
# The package index comes from pip's own settings. A stamp in .venv is written only after its install succeeded.

SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# a folder or page of wheels of llama-cpp-python, for machines that should not compile it: docs/decisions/0070
LLAMA_WHEELS ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PYTEST := $(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
TORCH := torch==2.13.0
# mkdocs.yml makes it strict; --quiet would undo that. The variable silences a notice about MkDocs 2, which is not used.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

# An install that was cut short may have left half a package that pip takes for whole: such a .venv is made anew.
INSTALLER := $(shell cat $(VENV)/.installing 2>/dev/null)
CUT_SHORT := $(if $(INSTALLER),$(shell kill -0 $(INSTALLER) 2>/dev/null || echo yes))
ifeq ($(if $(INSTALLER),$(if $(CUT_SHORT),,another)),another)
$(error another make (process $(INSTALLER)) is installing into $(VENV): wait for it to end)
endif

API_READY := $(VENV)/.installed-api
LLAMA_READY := $(VENV)/.installed-llama
RUN_READY := $(VENV)/.installed-run
LLM_API := $(VENV)/bin/llm-api
TORCH_READY := $(VENV)/.installed-torch
HUGGINGFACE_READY := $(VENV)/.installed-huggingface
OPENAI_READY := $(VENV)/.installed-openai
SUPPLY_CHAIN_READY := $(VENV)/.installed-supply-chain
DOCS_READY := $(VENV)/.installed-docs
GPTQ_READY := $(VENV)/.installed-gptq
TEST_READY := $(VENV)/.installed-test
FAST_TEST_READY := $(VENV)/.installed-fast-test
BENCH_READY := $(VENV)/.installed-bench
PEERS_READY := $(VENV)/.installed-peers

.PHONY: help run first-look whole-look huggingface gptq openai test test-fast test-clients check format docs reference bench bench-peers faults abuse damaged-files lock lock-clients audit sbom images clean again

help: ## what there is to type
	@echo "to use LLM API:"
	@grep -E '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.* ## /  make \1\t/'
	@echo "to work on it:"
	@grep -E '^[a-z-]+:.* ### ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.* ### /  make \1\t/'

.DEFAULT:
	@echo "there is neither a target nor a file $@; make help lists the targets" >&2; exit 2

run: first-look whole-look $(RUN_READY) $(LLM_API) ## set up and start: http://localhost:8000 answers prompts; Ctrl-C stops everything
	@exec $(PY) -m app.cli run

# A taken port or a wrong key in config.yaml is reported before minutes are spent: what Python alone can see at once, and the
# rest as soon as the packages of the API are there, before llama.cpp is compiled.
first-look:
	@[ -e $(RUN_READY) ] || { $(CHECK_PYTHON); $(PYTHON) deploy/make/first_look.py; echo "first start: everything goes into $(VENV), once"; }

whole-look: $(API_READY)
	@[ $(RUN_READY) -nt workers/requirements/llama.txt ] || $(PY) deploy/make/first_look.py --whole

huggingface: $(HUGGINGFACE_READY) ## install what `model_family: huggingface` needs; then make run

openai: $(OPENAI_READY) ## install what `model_family: openai` needs; then make run

gptq: $(GPTQ_READY) ## install what `model_family: gptq_llama` needs; then make run

test: $(TEST_READY) ### set up, check, and run the whole test suite
	@$(MAKE) --no-print-directory check
	@$(PY) -m tests.clients --install light
	$(PYTEST)

test-fast: $(FAST_TEST_READY) ### in a minute, while you work: the tests without a model, a container or a whole service
	$(PYTEST) -m "not model and not slow"

test-clients: $(TEST_READY) ### run the current releases of clients of OpenAI's API against the service; ONLY=litellm,ai_sdk
	$(PY) -m tests.clients $(if $(ONLY),--only $(ONLY))

check: $(TEST_READY) $(DOCS_READY) ### format, lint, types, the import rules and the documentation
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(BUILD_DOCS)

docs: $(DOCS_READY) ### build the documentation: open site/index.html
	$(BUILD_DOCS)

reference: $(DOCS_READY) ### write docs/configuration.md from the declarations of the keys
	$(PY) -m docs.configuration_reference > docs/configuration.md

format: $(TEST_READY) ### rewrite the source as ruff wants it
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(BENCH_READY) ### measure; URL=http://... a running service, ROUNDS=5, ONLY=throughput|prefix|speculation|hop|first_token|transformers|gptq|fairness
	$(PY) -m tests.bench $(if $(URL),--url $(URL)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

bench-peers: $(TEST_READY) $(PEERS_READY) ### measure in turn with other servers; LLAMA_SERVER=/path/to/llama-server, MODEL=file.gguf|set, ROUNDS=5, ONLY=1,8,32; more in docs/operations.md
	$(PY) -m tests.bench.peers --llama-cpp-python $(VENV)/peers --set-folder $(VENV)/peers-models \
	  $(if $(LLAMA_SERVER),--llama-server $(LLAMA_SERVER)) $(if $(MODEL),--model $(MODEL)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(AGAINST),--against $(AGAINST)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(PORT),--port $(PORT))

abuse: $(TEST_READY) ### attack a running service, and print what a healthy client of another key notices; ONLY="schemas files"
	$(PY) -m tests.abuse $(if $(ONLY),--only $(ONLY))

faults: $(TEST_READY) ### kill, stop and restart everything under load and count what came of it; ONLY=poison
	$(PY) -m tests.faults $(if $(ONLY),--only $(ONLY))

damaged-files: $(TEST_READY) ### load 120 damaged copies of a model file: each is refused in one line, or serves
	$(PY) -m tests.workers.engines.llama.damaged_files

images: ### build every image, bring every compose file up and check it; needs Docker. ONLY="compose gpu", OPTIONS=--no-build
	@$(PYTHON) -m tests.containers $(if $(ONLY),--only $(ONLY)) $(OPTIONS)

lock: $(SUPPLY_CHAIN_READY) ### write the requirement files from pyproject.toml; UPGRADE=1: with the newest of what is not pinned there
	@grep -hE '^[a-z0-9]' $(LOCKS) | sed 's/ *[;\].*//' | sort -u > $(VENV)/versions.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --no-header --all-extras $(GROUPS:%=--group %) pyproject.toml -o $(VENV)/versions.txt
	@$(COMPILE_ONE) -o requirements.txt
	@$(COMPILE_ONE) --extra llama --extra run -o app/requirements-run.txt
	@for family in llama huggingface openai; do $(COMPILE_ONE) --extra $$family -o workers/requirements/$$family.txt; done
	@$(COMPILE) --generate-hashes --no-deps --group gptq_llama -o workers/requirements/gptq_llama.txt
	@$(COMPILE_ONE) --extra openai --extra run --group fast_test -o tests/requirements-fast.txt
	@$(COMPILE_ONE) --all-extras --group fast_test --group test -o tests/requirements.txt
	@$(COMPILE_ONE) --extra huggingface --group bench -o tests/requirements-bench.txt
	@$(COMPILE_ONE) --group docs -o docs/requirements.txt
	@$(COMPILE_ONE) --group supply_chain -o tests/requirements-supply-chain.txt
	@$(COMPILE) --generate-hashes --no-deps --group images -o deploy/image/requirements-uv.txt

lock-clients: $(SUPPLY_CHAIN_READY) ### pin the current releases of the clients of tests/clients, and all that they need
	@for file in tests/clients/*/requirements.in; do $(VENV)/bin/uv pip compile --quiet --upgrade --no-annotate --python-version 3.11 --custom-compile-command 'make lock-clients' $$file -o $${file%.in}.txt; done
	@$(PY) -m tests.clients --install node
	@for file in tests/clients/*/package.json; do $(CURDIR)/.cache/clients/node/bin/npm update --prefix $$(dirname $$file) --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error; done

audit: $(SUPPLY_CHAIN_READY) ### ask the package index for known vulnerabilities of what the product installs
	@$(PY) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off $(PRODUCT_LOCKS:%=-r %) 2>&1 | tee $(VENV)/audit.log \
	  || { grep -qE '^Found [0-9]+ known' $(VENV)/audit.log || echo "the index could not be asked about every package: this audit says nothing" >&2; exit 1; }

sbom: $(SUPPLY_CHAIN_READY) ### list what each image installs, in CycloneDX: sbom/*.json
	@mkdir -p sbom
	@for file in $(PRODUCT_LOCKS); do $(PY) -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible -o sbom/$$(basename $$file .txt).json $$file; done
	@ls sbom/*.json

clean: ## remove .venv, caches and the built documentation; models and data stay
	rm -rf $(VENV) site .cache .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find app workers tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the requirement files: pyproject.toml lists what is wanted, these hold all that it needs, with hashes ----------------

PRODUCT_LOCKS := requirements.txt $(addprefix workers/requirements/,llama.txt huggingface.txt gptq_llama.txt openai.txt)
LOCKS := $(PRODUCT_LOCKS) app/requirements-run.txt docs/requirements.txt deploy/image/requirements-uv.txt $(addprefix tests/requirements,.txt -fast.txt -bench.txt -supply-chain.txt)
GROUPS := fast_test test docs bench supply_chain
# torch has no hash: which build of it is right depends on the machine
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-package torch --custom-compile-command 'make lock'
COMPILE_ONE := $(COMPILE) --generate-hashes --constraint $(VENV)/versions.txt pyproject.toml

# --- set-up -----------------------------------------------------------------------------------------------------------

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "LLM API needs Python 3.11 or newer, and $(PYTHON) is older or missing: install one (apt: python3) or name it (make PYTHON=python3.12)" >&2; exit 1; }

$(VENV)/.created: $(if $(CUT_SHORT),again)
	@$(CHECK_PYTHON)
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: apt install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(API_READY): requirements.txt $(VENV)/.created
	@echo "installing what the API needs"
	$(call install_shown)
	@rm $(VENV)/.installing
	@touch $@

ROWS_KERNEL := $(addprefix workers/engines/llama/rows_kernel/,build.py rows.c kernels.h avx512.h blocks_of_32.h blocks_of_256.h)
$(LLAMA_READY): workers/requirements/llama.txt $(ROWS_KERNEL) $(API_READY)
	@[ -n "$(LLAMA_WHEELS)" ] || { command -v "$${CC:-cc}" && command -v "$${CXX:-c++}"; } >/dev/null || { echo "no C/C++ compiler, which llama.cpp is built with: apt install build-essential (or a wheel: docs/decisions/0070)" >&2; exit 1; }
	@echo "installing llama-cpp-python and what it needs"
	@$(if $(LLAMA_WHEELS),$(PIP) install -q --no-deps --no-index --only-binary :all: --find-links $(LLAMA_WHEELS) $$(grep -oE '^llama-cpp-python==[^ ]+' $<))
	$(call install_shown)
	@$(PY) workers/engines/llama/rows_kernel/build.py
	@rm $(VENV)/.installing
	@touch $@

$(RUN_READY): app/requirements-run.txt $(LLAMA_READY)
	$(call install,$(LOCKED) $<,an embedded Valkey)

$(LLM_API): deploy/image/llm-api.sh $(VENV)/.created
	@install -m 755 $< $@

# torch first: what depends on it would else choose another build of it
$(TORCH_READY): $(RUN_READY)
	$(call install,$(TORCH),$(TORCH))

$(HUGGINGFACE_READY): workers/requirements/huggingface.txt $(TORCH_READY)
	$(call install,$(LOCKED) $<,the huggingface family)

$(OPENAI_READY): workers/requirements/openai.txt $(RUN_READY)
	$(call install,$(LOCKED) $<,the openai family)

GPTQ_KERNEL := workers/engines/gptq/int4_kernel/build.py workers/engines/gptq/int4_kernel/int4_matmul.c
$(GPTQ_READY): workers/requirements/gptq_llama.txt $(GPTQ_KERNEL) $(HUGGINGFACE_READY)
	$(call install,$(LOCKED) $< && $(PY) -m workers.engines.gptq.int4_kernel.build,the gptq_llama family)

# the API's own requirements and the site's: no model library, nothing to compile
$(DOCS_READY): docs/requirements.txt $(VENV)/.created
	$(call install,$(LOCKED) $<,what the documentation needs)

$(SUPPLY_CHAIN_READY): tests/requirements-supply-chain.txt $(VENV)/.created
	$(call install,$(LOCKED) $<,what the requirement files are made and checked with)

# no model library: half a minute on a fresh machine; where everything is installed, nothing changes
$(FAST_TEST_READY): tests/requirements-fast.txt $(VENV)/.created
	$(call install,$(LOCKED) $<,what the fast tests need)

$(TEST_READY): tests/requirements.txt $(GPTQ_READY)
	$(call install,$(LOCKED) $<,what the tests need)

# what the benchmark's peer serves with; nothing that is there changes
$(BENCH_READY): tests/requirements-bench.txt $(TEST_READY)
	$(call install,$(LOCKED) $<,what the benchmarks need)

$(PEERS_READY): tests/bench/peers/requirements.txt $(TEST_READY)
	$(call install,--upgrade --target $(VENV)/peers -r $<,a server to measure beside)

# with bars: what a first `make run` waits for
define install_shown
@echo $$PPID > $(VENV)/.installing
@$(PIP) install -v --require-hashes --no-deps -r $< 2>&1 | tee $(VENV)/install.log | $(PY) deploy/make/progress.py $< \
  || { grep -vE '^ *(Looking|Requirement|Using|Created|Collecting)' $(VENV)/install.log | tail -n 30 >&2; echo "the whole output is in $(VENV)/install.log" >&2; exit 1; }
endef

LOCKED := --require-hashes --no-deps -r

define install
@echo "installing $(2)"
@echo $$PPID > $(VENV)/.installing
@$(PIP) install -qq $(1)
@rm $(VENV)/.installing
@touch $@
endef
