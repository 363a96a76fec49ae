# Each target makes the virtual environment that it needs. PYTHON may name another interpreter.
PYTHON ?= python3
RESULTS := benchmarks/results
# OpenVINO's plugin, of the extra cpu, passes over AMD's CPUs; the wheel with OpenVINO built in takes them.
RUNTIME ?= $(if $(shell grep -m1 AuthenticAMD /proc/cpuinfo 2>/dev/null),openvino,cpu)
SAMPLE := src/segrt/models/sample.png

.PHONY: demo test lint docs export-test zoo-test test-openvino-wheel test-gpu-wheel browser-test clients-test bench bench-paddlex clean

demo: .venv/.ready
	.venv/bin/segrt predict $(SAMPLE) --save_path output --overlay
	@echo "Look at output/sample_overlay.png and output/sample_res.png"

test: .venv/.ready
	.venv/bin/python -m pytest

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# The documentation, into site/.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# The export tests, which need Paddle.
export-test: .venv-export/.ready
	.venv-export/bin/python -m pytest tests/export

# All 18 models, untrained: export each and compare it with Paddle Inference. About 20 minutes.
zoo-test: .venv-export/.ready
	.venv-export/bin/python -m pytest -m zoo tests/zoo

# The wheels other than the one that `make test` runs on. onnxruntime-gpu comes without CUDA's libraries (gigabytes): on a
# machine without a GPU, what must work is OpenVINO, the CPU, and saying what is missing.
test-openvino-wheel: .venv-openvino/.ready
	.venv-openvino/bin/python -m pytest tests/wheels/test_openvino_wheel.py tests/backends/test_session.py \
	    tests/test_pipeline.py::test_bf16_keeps_the_labels_of_real_photos

test-gpu-wheel: .venv-gpu/.ready
	.venv-gpu/bin/python -m pytest tests/wheels/test_gpu_wheel.py

# The server's page in a headless Chromium, and examples/clients. What is not installed is skipped and named:
# tools/apt-get-needed.sh installs all of it on Debian.
browser-test: .venv/.ready
	.venv/bin/python -m pytest -m browser -rs tests/serve/test_page.py

clients-test: .venv/.ready
	.venv/bin/python -m pytest -m clients -rs tests/clients

# The table of the 18 models on this machine's CPU, beside Paddle Inference. About half an hour.
bench: .venv-bench/.ready
	.venv-bench/bin/segrt-bench --all --untrained --device cpu --size 512x1024 --compare paddle \
	    -o $(RESULTS)/cpu.md -o $(RESULTS)/cpu.json --plot $(RESULTS)/cpu.png

# One model beside the whole PaddleX pipeline: make bench-paddlex MODEL=path/to/paddle_model
bench-paddlex: .venv-bench/.ready .venv-paddlex/.ready
	.venv-bench/bin/python benchmarks/compare_paddlex.py $(MODEL) --paddlex-python .venv-paddlex/bin/python

# Debian's python3 comes without ensurepip, so pip is asked to work on the environment from outside.
INSTALL = $(PYTHON) -m venv --without-pip $(@D) && $(PYTHON) -m pip --python $(@D)/bin/python install --quiet

.venv/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,serve]'
	touch $@

.venv-export/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,export,serve]'
	$(INSTALL) --no-deps paddleseg==2.8.0
	touch $@

.venv-bench/.ready: pyproject.toml
	$(INSTALL) --editable '.[$(RUNTIME),bench,export]'
	$(INSTALL) --no-deps paddleseg==2.8.0
	touch $@

.venv-docs/.ready: pyproject.toml
	$(INSTALL) --editable '.[docs]'
	touch $@

.venv-openvino/.ready: pyproject.toml
	$(INSTALL) --editable '.[openvino,dev,serve]'
	touch $@

.venv-gpu/.ready: pyproject.toml
	$(INSTALL) --editable '.[dev,serve]' onnxruntime-gpu onnxruntime-ep-openvino
	touch $@

.venv-paddlex/.ready:
	$(INSTALL) 'paddlex[cv,serving]==3.7.2' paddlepaddle==3.2.2
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-docs .venv-export .venv-openvino .venv-gpu .venv-paddlex output dist site .pytest_cache .mypy_cache .ruff_cache
