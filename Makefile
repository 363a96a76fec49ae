# Each target creates the virtual environment it needs. PYTHON selects the interpreter.
PYTHON ?= python3
RESULTS := benchmarks/results
# The extra for benchmarks and frozen programs: OpenVINO exists for x86-64.
RUNTIME ?= $(if $(filter x86_64,$(shell uname -m)),openvino,cpu)
SAMPLE := src/segrt/models/sample.png
# Coverage is measured where that is cheap: before Python 3.12 it takes a fifth of the time. Override
# with `make test COVERAGE=--cov`, or `COVERAGE=`.
COVERAGE ?= $(shell $(PYTHON) -c 'import sys; print("--cov" if sys.version_info >= (3, 12) else "")')

.PHONY: demo test lint docs docs-check pictures package export-test zoo-test test-openvino-wheel test-gpu-wheel gpu-test \
    browser-test web-test clients-test frameworks-test pyinstaller-test scale-test bench bench-paddlex \
    clean

demo: .venv/.ready
	.venv/bin/segrt predict $(SAMPLE) --save_path output --overlay
	@echo "Look at output/sample_overlay.png and output/sample_res.png"

# In two processes, since most tests use one core. With more cores, make test WORKERS=4; WORKERS=0
# runs them in one process.
WORKERS ?= 2

test: .venv/.ready
	.venv/bin/python -m pytest $(COVERAGE) --numprocesses=$(WORKERS) --dist=loadfile

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell

# The documentation, into site/.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# All pages in a headless Chromium, in light and dark colours: axe-core, and links within the site.
docs-check: docs .venv/.ready .npm/.ready
	.venv/bin/python tools/check_docs.py site .npm/node_modules/axe-core/axe.min.js

# The pictures of the documentation.
pictures: .venv/.ready
	.venv/bin/python tools/draw_scenes.py docs/images
	.venv/bin/python tools/draw_figures.py docs/images

# The sdist and the wheel, into dist/, as they would be uploaded.
package: .venv-package/.ready
	rm -rf dist
	.venv-package/bin/python -m build
	.venv-package/bin/twine check --strict dist/*

# The export tests, which require Paddle. In processes like `make test`: conversions use one core.
export-test: .venv-export/.ready
	.venv-export/bin/python -m pytest tests/export --numprocesses=$(WORKERS) --dist=loadfile

# Export all 18 models, untrained, and compare them with Paddle Inference.
zoo-test: .venv-export/.ready
	.venv-export/bin/python -m pytest -m zoo tests/zoo --numprocesses=$(WORKERS)

# The wheels that `make test` does not cover. onnxruntime-gpu is installed without the CUDA
# libraries (gigabytes): without a GPU, OpenVINO and the CPU must work, and errors must say what is
# missing.
test-openvino-wheel: .venv-openvino/.ready
	.venv-openvino/bin/python -m pytest tests/wheels/test_openvino_wheel.py tests/backends/test_session.py \
	    tests/test_pipeline.py::test_bf16_keeps_the_labels_of_real_photos

test-gpu-wheel: .venv-gpu/.ready
	.venv-gpu/bin/python -m pytest tests/wheels/test_gpu_wheel.py

# All GPU plans on a machine with an NVIDIA GPU, in the environment that GPU_PYTHON belongs to, with
# segrt[gpu] and pytest; nothing is installed. Without a GPU the tests are skipped. For times and
# benchmarks/results/gpu.md: see benchmarks/gpu.py.
GPU_PYTHON ?= python3

gpu-test:
	$(GPU_PYTHON) -m pytest -rs tests/gpu

# The server's page in a headless Chromium, and examples/clients. Tests whose tools are missing are
# skipped and listed; on Debian, tools/apt-get-needed.sh installs all of them.
browser-test: .venv/.ready $(if $(shell command -v npm),.npm/.ready)
	.venv/bin/python -m pytest -m browser -rs tests/serve/test_page.py

clients-test: .venv/.ready
	$(PYTHON) -m pip --python .venv/bin/python install --quiet 'tritonclient[http]>=2.40'
	.venv/bin/python -m pytest -m clients -rs tests/clients

# segrt-web in Node.js and the page of `segrt web` in a headless Chromium. SEGRT_WEB_PHOTOS is the
# number of photos that are compared with Python.
web-test: .venv/.ready .npm/.ready
	node --test packages/web/test/*.mjs
	.venv/bin/python -m pytest -m web -rs tests/web

# Networks of transformers, torchvision and segmentation_models.pytorch, compared with torch; label
# files converted by datumaro.
frameworks-test: .venv-frameworks/.ready
	.venv-frameworks/bin/python -m pytest -m frameworks -rs tests/frameworks

# Ray, in a network namespace of its own, since it listens on all interfaces. Where unshare is not
# allowed, the tests are skipped.
NAMESPACE = $(shell unshare -n true 2>/dev/null && echo 'unshare -n sh -c "ip link set lo up; exec \"\$$@\"" sh')

scale-test: .venv-ray/.ready
	$(NAMESPACE) .venv-ray/bin/python -m pytest -m scale -rs tests/scale

# Programs frozen by PyInstaller with the hooks of the wheel. Minutes; needs objdump (binutils).
pyinstaller-test: .venv/.ready .venv-pyinstaller/.ready
	$(PYTHON) -m pip --python .venv-pyinstaller/bin/python install --quiet --no-deps --force-reinstall .
	.venv/bin/python -m pytest -m pyinstaller -rs tests/packaging

# The table of the 18 models on this CPU, compared with Paddle Inference, ONNX Runtime and OpenVINO as
# users call them. Three quarters of an hour; the first time, it builds the models for another half.
# PHOTOS is a folder of labelled photos with CamVid's classes, to which the last layers are fitted;
# INT8 a folder with quantized models; TRAINED lists further models.
PHOTOS ?= ../shared/camvid_mini
INT8 ?=
TRAINED ?=
bench: .venv-bench/.ready
	.venv-bench/bin/segrt-bench $(TRAINED) --all --fitted $(PHOTOS) --ignore-index 11 \
	    --dataset-size 360x480 $(if $(INT8),--int8 $(INT8)) --device cpu --size 512x1024 \
	    --compare paddle --compare onnxruntime --compare openvino --seconds 20 \
	    -o $(RESULTS)/cpu.md -o $(RESULTS)/cpu.json --plot $(RESULTS)/cpu.png

# One model compared with the whole PaddleX pipeline: make bench-paddlex MODEL=path/to/paddle_model
bench-paddlex: .venv-bench/.ready .venv-paddlex/.ready
	.venv-bench/bin/python benchmarks/compare_paddlex.py $(MODEL) --paddlex-python .venv-paddlex/bin/python

# Debian's python3 has no ensurepip, so pip installs into the environment from outside. Python
# compiles the modules that are imported, once, also where the environment tells it not to keep
# them; pip would compile all.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(PYTHON) -m venv --without-pip $(@D) && \
    $(PYTHON) -m pip --python $(@D)/bin/python install --quiet --no-compile

.venv/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,serve]'
	touch $@

.venv-export/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,edge,export,serve]'
	$(INSTALL) --no-deps paddleseg==2.8.0
	touch $@

.venv-bench/.ready: pyproject.toml
	$(INSTALL) --editable '.[$(RUNTIME),bench,export]' openvino
	$(INSTALL) --no-deps paddleseg==2.8.0
	touch $@

# The build of torch for CPUs where pip finds one: PyPI's installs gigabytes of CUDA libraries.
TORCH ?= torch$(addprefix ==,$(shell $(PYTHON) -m pip index versions torch 2>/dev/null \
    | grep -om1 '[0-9.]*+cpu' | head -n1))

.venv-frameworks/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,export]' '$(TORCH)' torchvision transformers \
	    segmentation-models-pytorch onnxscript datumaro
	touch $@

.venv-ray/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,dev,ray,serve]' s3fs 'moto[s3,server]'
	touch $@

# The runtimes and axe-core from npm. Their install scripts would only download GPU libraries.
.npm/.ready: Makefile
	npm install --prefix .npm --ignore-scripts --no-audit --no-fund --silent \
	    onnxruntime-node@1.30.0 onnxruntime-web@1.30.0 axe-core@4.14.1
	touch $@

.venv-docs/.ready: pyproject.toml
	$(INSTALL) --editable '.[cpu,docs]'
	touch $@

.venv-package/.ready:
	$(INSTALL) build twine
	touch $@

.venv-openvino/.ready: pyproject.toml
	$(INSTALL) --editable '.[openvino,dev,serve]'
	touch $@

# Not editable: what the wheel contains is tested.
.venv-pyinstaller/.ready: pyproject.toml
	$(INSTALL) '.[$(RUNTIME),serve]' pyinstaller
	touch $@

.venv-gpu/.ready: pyproject.toml
	$(INSTALL) --editable '.[dev,serve]' onnxruntime-gpu onnxruntime-ep-openvino
	touch $@

.venv-paddlex/.ready:
	$(INSTALL) 'paddlex[cv,serving]==3.7.2' paddlepaddle==3.2.2
	touch $@

clean:
	rm -rf .npm .venv .venv-bench .venv-docs .venv-export .venv-frameworks .venv-gpu \
	    .venv-openvino .venv-package .venv-paddlex .venv-pyinstaller .venv-ray output dist site .cache .coverage .hypothesis .*_cache
