# Everything here needs only make, a POSIX shell and Python 3.11 or newer.
# It is written for GNU make 3.81 and up (the one macOS has), without GNU-only tools.

SHELL = /bin/sh
VENV = .venv
VENV_LOWEST = .venv-lowest
AZURITE = build/azurite
AZURITE_VERSION = 3.35.0
ARGS =
# Two tests at a time; those of one file one after the other, as they share clusters, and the
# files in the order that tests/conftest.py gives them.
IN_PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder

# Choose the interpreter of a new virtual environment: make test PYTHON=/path/to/python3
PYTHON ?=
PYTHONS = python3.14 python3.13 python3.12 python3.11 python3
PYTHONS_LOWEST = python3.11 python3.12 python3.13 python3

# Without bytecode files every new worker process would compile dask again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo test test-lowest lint format types chaos bench bench-full clean distclean

# $(call make-venv,FOLDER,INTERPRETERS): make a virtual environment, unless a working one is there.
# A name on PATH proves nothing (it may be a shim, or a Python without ensurepip): each is run.
define make-venv
@"$(1)/bin/python" -c 'import pip' >/dev/null 2>&1 || { \
	python=; bare=; \
	for name in $(if $(PYTHON),"$(PYTHON)",$(2)); do \
		"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if "$$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then python="$$name"; break; fi; \
		bare="$${bare:-$$name}"; \
	done; \
	if [ -z "$$python" ] && [ -n "$$bare" ]; then \
		echo "make: $$bare cannot make virtual environments: it lacks venv or ensurepip (on Debian and Ubuntu, install python3-venv), or choose another with PYTHON=/path/to/python3" >&2; exit 1; \
	elif [ -z "$$python" ]; then \
		echo "make: no working Python 3.11 or newer found (tried: $(if $(PYTHON),$(PYTHON),$(2))); choose one with PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making $(1) with $$python ($$("$$python" -c 'import platform; print(platform.python_version())'))"; \
	"$$python" -m venv --clear "$(1)" || { rm -rf "$(1)"; echo "make: $$python -m venv failed; choose another Python with PYTHON=/path/to/python3" >&2; exit 1; }; \
	echo '*' > "$(1)/.gitignore"; \
}
endef

# $(call install,EXTRA): install the project with an extra, unless that was done already.
# The stamp holds where the project is and its pyproject.toml, so it ends when either changes.
define install
$(call make-venv,$(VENV),$(PYTHONS))
@{ pwd; cat pyproject.toml; } | cmp -s - "$(VENV)/.installed-$(1)" || { \
	echo "Installing daskprs[$(1)] in $(VENV)" && \
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]' && \
	{ pwd; cat pyproject.toml; } > "$(VENV)/.installed-$(1)"; \
}
endef

# The server of Azure Blob Storage that some tests need; without npm they say so, and are skipped.
define install-azurite
@{ test -f "$(AZURITE)/.installed-$(AZURITE_VERSION)" || ! command -v node || ! command -v npm; } >/dev/null 2>&1 || { \
	echo "Installing azurite $(AZURITE_VERSION) in $(AZURITE)" && \
	rm -rf "$(AZURITE)" && mkdir -p "$(AZURITE)" && \
	npm install --silent --no-audit --no-fund --fetch-retries=1 --prefix "$(AZURITE)" "azurite@$(AZURITE_VERSION)" && \
	touch "$(AZURITE)/.installed-$(AZURITE_VERSION)"; \
} || echo "make: azurite cannot be installed; the tests that need it are skipped" >&2
endef

ifneq ($(wildcard benchmarks/.),)
define run-benchmarks
$(call install,bench)
$(VENV)/bin/python -m benchmarks.run $(1) $(ARGS)
endef
else
run-benchmarks = @echo "There is no folder benchmarks: nothing to run."
endif

help: ## list the targets
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do printf '  %-12s %s\n' "$$name" "$$what"; done
	@echo "Options: PYTHON=/path/to/python3 (for a new virtual environment), ARGS=... (added to pytest or the benchmarks)"

venv: ## make .venv with everything for development in it
	$(call install,dev)

demo: ## classify 1,797 pictures of digits with the library
	$(call install,examples)
	$(VENV)/bin/python examples/digits/demo.py

test: ## run the tests
	$(call install,test)
	$(call install-azurite)
	$(VENV)/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

test-lowest: ## run the tests on the oldest versions of the dependencies that pyproject.toml allows
	$(call make-venv,$(VENV_LOWEST),$(PYTHONS_LOWEST))
	@$(VENV_LOWEST)/bin/python -c 'import re, tomllib; \
	needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
	bounds = [re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", need) for need in needs]; \
	print(*(f"{name}=={version}" for name, version in (bound.groups() for bound in bounds)), sep="\n")' > $(VENV_LOWEST)/lowest.txt
	@{ pwd; cat pyproject.toml; } | cmp -s - $(VENV_LOWEST)/.installed-test || { \
		echo "Installing daskprs[test] in $(VENV_LOWEST) with" `cat $(VENV_LOWEST)/lowest.txt` && \
		$(VENV_LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV_LOWEST)/lowest.txt -e '.[test]' && \
		{ pwd; cat pyproject.toml; } > $(VENV_LOWEST)/.installed-test; \
	}
	$(call install-azurite)
	$(VENV_LOWEST)/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

lint: ## check the code with ruff, and its format
	$(call install,dev)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

format: ## format the code, and fix what ruff can fix
	$(call install,dev)
	$(VENV)/bin/python -m ruff format .
	$(VENV)/bin/python -m ruff check --fix .

types: ## check the types with mypy
	$(call install,dev)
	$(VENV)/bin/python -m mypy

chaos: ## run the tests that kill workers and processes (slow)
	$(call install,test)
	$(call install-azurite)
	$(VENV)/bin/python -m pytest -m chaos $(ARGS)
	$(VENV)/bin/python tests/kills.py --trials 200

bench: ## run the benchmarks in small
	$(call run-benchmarks,--small)

bench-full: ## run the benchmarks in full
	$(call run-benchmarks,)

clean: ## remove what was built and cached, but not the virtual environments
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name '.venv*' -prune -o -name '.git' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the virtual environments
	rm -rf $(VENV) $(VENV_LOWEST)
