# Each target makes the virtual environment that it needs. PYTHON may name another interpreter.
PYTHON ?= python3
VENV := .venv
EXPORT_VENV := .venv-export
SAMPLE := src/segrt/models/sample.png

.PHONY: demo test lint export-test test-openvino-wheel test-gpu-wheel clean

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

# The wheels other than the one that `make test` runs on. onnxruntime-gpu comes without CUDA's libraries (gigabytes): on a
# machine without a GPU, what must work is OpenVINO, the CPU, and saying what is missing.
test-openvino-wheel: .venv-openvino/.ready
	.venv-openvino/bin/python -m pytest tests/wheels/test_openvino_wheel.py

test-gpu-wheel: .venv-gpu/.ready
	.venv-gpu/bin/python -m pytest tests/wheels/test_gpu_wheel.py

.venv-openvino/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip .venv-openvino
	$(PYTHON) -m pip --python .venv-openvino/bin/python install --quiet --editable '.[openvino,dev]'
	touch $@

.venv-gpu/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip .venv-gpu
	$(PYTHON) -m pip --python .venv-gpu/bin/python install --quiet --editable '.[dev]' onnxruntime-gpu \
	  onnxruntime-ep-openvino
	touch $@

# Debian's python3 comes without ensurepip, so pip is asked to work on the environment from outside.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --editable '.[cpu,dev]'
	touch $@

$(EXPORT_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv --without-pip $(EXPORT_VENV)
	$(PYTHON) -m pip --python $(EXPORT_VENV)/bin/python install --quiet --editable '.[cpu,dev,export]'
	touch $@

clean:
	rm -rf $(VENV) $(EXPORT_VENV) .venv-openvino .venv-gpu output dist .pytest_cache .mypy_cache .ruff_cache
