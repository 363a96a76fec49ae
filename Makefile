# Each target makes the virtual environment that it needs. PYTHON may name another interpreter.
PYTHON ?= python3
VENV := .venv
EXPORT_VENV := .venv-export
PADDLEX_VENV := .venv-paddlex
RESULTS := benchmarks/results
SAMPLE := src/segrt/models/sample.png

.PHONY: demo test lint export-test zoo-test bench bench-paddlex clean

demo: $(VENV)/.ready
	$(VENV)/bin/segrt predict $(SAMPLE) --save_path output --overlay
	@echo "Look at output/sample_overlay.png and output/sample_res.png"

test: $(VENV)/.ready
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The export tests, which need Paddle.
export-test: $(EXPORT_VENV)/.ready
	$(EXPORT_VENV)/bin/python -m pytest tests/export

# All 18 models, untrained: export each and compare it with Paddle Inference. About 20 minutes.
zoo-test: $(EXPORT_VENV)/.ready
	$(EXPORT_VENV)/bin/python -m pytest -m zoo tests/zoo

# The table of the 18 models on this machine's CPU, beside Paddle Inference. About half an hour.
bench: $(EXPORT_VENV)/.ready
	$(EXPORT_VENV)/bin/segrt-bench --all --untrained --device cpu --size 512x1024 --compare paddle \
	    -o $(RESULTS)/cpu.md -o $(RESULTS)/cpu.json --plot $(RESULTS)/cpu.png

# One model beside the whole PaddleX pipeline: make bench-paddlex MODEL=path/to/paddle_model
bench-paddlex: $(EXPORT_VENV)/.ready $(PADDLEX_VENV)/.ready
	$(EXPORT_VENV)/bin/python benchmarks/compare_paddlex.py $(MODEL) --paddlex-python $(PADDLEX_VENV)/bin/python

# Debian's python3 comes without ensurepip, so pip is asked to work on the environment from outside.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --editable '.[cpu,dev]'
	touch $@

$(EXPORT_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip $(EXPORT_VENV)
	$(PYTHON) -m pip --python $(EXPORT_VENV)/bin/python install --quiet --editable '.[cpu,dev,export]'
	$(PYTHON) -m pip --python $(EXPORT_VENV)/bin/python install --quiet --no-deps paddleseg==2.8.0
	touch $@

$(PADDLEX_VENV)/.ready:
	$(PYTHON) -m venv --without-pip $(PADDLEX_VENV)
	$(PYTHON) -m pip --python $(PADDLEX_VENV)/bin/python install --quiet 'paddlex[cv]==3.7.2' paddlepaddle==3.2.2
	touch $@

clean:
	rm -rf $(VENV) $(EXPORT_VENV) $(PADDLEX_VENV) output dist .pytest_cache .mypy_cache .ruff_cache
