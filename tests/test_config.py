from __future__ import annotations

from pathlib import Path

import pytest

import segrt
from segrt import config
from segrt.errors import ConfigError

PADDLEX = """
pipeline_name: semantic_segmentation

SubModules:
  SemanticSegmentation:
    module_name: semantic_segmentation
    model_name: PP-LiteSeg-T
    model_dir: null
    batch_size: 4
    target_size: None
"""


def test_paddlex_file_is_accepted_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(PADDLEX)
    module = config.load(file, None).module
    assert (module.model_name, module.model_dir, module.batch_size, module.target_size) == (
        "PP-LiteSeg-T",
        None,
        4,
        None,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", ":1: the whole"),
        ("pipeline_name: ocr", "unknown pipeline 'ocr'"),
        (
            "pipeline_name: semantic_segmentation\nx: 1",
            r":2: x: there is no such key; use pipeline_name, SubModules",
        ),
        (
            "SubModules: {SemanticSegmentation:\n  {batch_size: 0}}",
            r":2: SubModules\.SemanticSegmentation\.batch_size",
        ),
        (
            "SubModules: {SemanticSegmentation: {target_size: big}}",
            "target_size 'big' is not valid",
        ),
        ("", ":1: the whole"),
        ("a: [", ":2: did not find expected node content"),
        (
            "SubModules:\n  SemanticSegmentation:\n    batchsize: 1",
            r":3: .*batchsize: there is no .* mean 'batch_size'\?",
        ),
        ("Submodules: {}", r":1: Submodules: there is no such key \(did you mean 'SubModules'\?\)"),
        ("device: cpu\ndevice: gpu", ":2: device: the key stands in line 1 already"),
        ("SubModules: {SemanticSegmentation: {slide: {crop: 5}}}", "slide"),
    ],
)
def test_errors_contain_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(file, None)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_pipelines_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown pipeline 'ocr'"):
        config.load("ocr", None)
    with pytest.raises(ConfigError, match="can't be read"):
        config.load(tmp_path / "gone.yaml", None)
    with pytest.raises(ConfigError, match="name a pipeline"):
        config.load(None, None)


def test_errors_of_a_mapping_have_no_line() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^config: SubModules\.SemanticSegmentation\.targetsize: .* 'target_size'\?\)$",
    ):
        config.load(None, {"SubModules": {"SemanticSegmentation": {"targetsize": 1}}})


def test_template_is_valid_with_and_without_its_comments(tmp_path: Path) -> None:
    file = config.write_template("semantic_segmentation", tmp_path / "new")
    assert file == tmp_path / "new" / "semantic_segmentation.yaml"
    assert config.load(file, None).module.batch_size == 1
    file.write_text(
        config.TEMPLATE.replace("# device", "device")
        .replace("# mode", "mode")
        .replace("# hpi", "hpi")
    )
    file.write_text(file.read_text().replace("# slide", "slide").replace("# palette", "palette"))
    loaded = config.load(file, None)
    assert (loaded.device, loaded.module.palette) == ("gpu:0", "cityscapes")
    with pytest.raises(ConfigError, match="exists"):
        config.write_template("semantic_segmentation", file)
    with pytest.raises(ConfigError, match="unknown pipeline 'ocr'"):
        config.write_template("ocr", tmp_path)


# Each way in which PaddleX 3.0 to 3.7 lets a file of this pipeline say how the model runs: the
# lines at the top, those of the module, and what runs here on a CPU.
FORMS = {
    "3.0 to 3.7, as written by --get_pipeline_config": ("", "", "normal", "cpu", None),
    "use_hpip": ("use_hpip: True", "", "high-performance", None, None),
    "use_hpip: False": ("use_hpip: False", "", "normal", "cpu", None),
    "hpi_config": (
        "use_hpip: True\nhpi_config:\n  backend: onnxruntime",
        "",
        "high-performance",
        "cpu",
        None,
    ),
    "hpi_config without use_hpip": ("hpi_config: {backend: openvino}", "", "normal", "cpu", None),
    "backend_config": (
        "use_hpip: true\nhpi_config: {backend: onnxruntime, backend_config: {cpu_num_threads: 1}}",
        "",
        "high-performance",
        "cpu",
        1,
    ),
    "auto_config": (
        "use_hpip: True\n"
        "hpi_config: {auto_config: False, backend: onnxruntime, auto_paddle2onnx: True}",
        "",
        "high-performance",
        "cpu",
        None,
    ),
    "backend: paddle": (
        "use_hpip: True\nhpi_config:\n  backend: paddle\n  backend_config:\n    cpu_threads: 1",
        "",
        "high-performance",
        None,
        1,
    ),
    "per module": (
        "",
        "use_hpip: True\nhpi_config:\n  backend: onnxruntime\n  backend_config:\n"
        "    cpu_num_threads: 1",
        "high-performance",
        "cpu",
        1,
    ),
    "the module wins": ("use_hpip: True", "use_hpip: False", "normal", "cpu", None),
    "levels are merged": (
        "use_hpip: True\nhpi_config: {backend: onnxruntime}",
        "hpi_config: {backend_config: {cpu_num_threads: 1}}",
        "high-performance",
        "cpu",
        1,
    ),
    "null": (
        "use_hpip: null\nhpi_config: null\nengine: None",
        "hpi_config: None",
        "normal",
        "cpu",
        None,
    ),
    "engine, from 3.5 on": ("engine: paddle", "", "normal", "cpu", None),
    "engine: paddle_static": (
        "engine: paddle_static\nengine_config: {cpu_threads: 1, run_mode: mkldnn}",
        "",
        "normal",
        "cpu",
        1,
    ),
    "engine: hpi": (
        "engine: hpi\nengine_config: {backend: onnxruntime, backend_config: {cpu_num_threads: 1}}",
        "",
        "high-performance",
        "cpu",
        1,
    ),
    "engine: onnxruntime": (
        "engine: onnxruntime\nengine_config: {intra_op_num_threads: 1}",
        "",
        "normal",
        "cpu",
        1,
    ),
    "engine_config for several engines": (
        "engine: hpi\nengine_config:\n  paddle_static: {run_mode: mkldnn}\n"
        "  hpi: {backend: onnxruntime, backend_config: {cpu_num_threads: 1}}",
        "",
        "high-performance",
        "cpu",
        1,
    ),
    "engine of the module": (
        "engine: hpi\nengine_config: {backend: openvino}",
        "engine: paddle\nengine_config: {cpu_threads: 1}",
        "normal",
        "cpu",
        1,
    ),
    "use_hpip of the module wins over engine": (
        "engine: paddle\nengine_config: {cpu_threads: 1}",
        "use_hpip: True\nhpi_config: {backend: onnxruntime}",
        "high-performance",
        "cpu",
        None,
    ),
    "Serving": (
        "Serving:\n  visualize: False\n  return_urls: null\n  extra: {max_num_input_imgs: null}",
        "",
        "normal",
        "cpu",
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_paddlex_file_runs_unchanged(
    form: str, tmp_path: Path, colour_model: Path
) -> None:
    top, module, mode, backend, threads = FORMS[form]
    text = PADDLEX.replace("model_dir: null", f"model_dir: {colour_model}")
    text = f"{top}\n{text}"
    text += "".join(f"    {line}\n" for line in module.splitlines())
    file = tmp_path / "semantic_segmentation.yaml"
    file.write_text(text)
    pipeline = segrt.create_pipeline(str(file), device="cpu")
    plan = pipeline.session.plan
    assert pipeline.mode.value == mode
    assert backend in (None, plan.backend.name)
    assert threads in (None, plan.threads)
    assert (config.load(file, None).serving.visualize) == (form != "Serving")


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("use_hpi: True", r":2: use_hpi: .* \(did you mean 'use_hpip'\?\)"),
        ("Servings: {}", r":2: Servings: .* \(did you mean 'Serving'\?\)"),
        ("Serving: {visualise: True}", r":2: Serving.visualise: .* mean 'visualize'\?"),
        (
            "engine: transformers",
            r"engine 'transformers' is not valid .* use paddle, paddle_static,",
        ),
        ("engine: padle", r"did you mean 'paddle'\?"),
        ("engine_config: {cpu_thread: 1}", r"engine_config: cpu_thread: .* mean 'cpu_threads'\?"),
        ("engine_config: {run_mode: trt_int8}", "it names no quantised model"),
        ("engine_config: {run_mode: fast}", "engine_config: run_mode: "),
        (
            "hpi_config: {backend: onnxruntim}",
            r"unknown backend 'onnxruntim' \(did you mean 'onnxruntime'\?\)",
        ),
        ("hpi_config: {auto_confg: True}", r"hpi_config: auto_confg: .* mean 'auto_config'\?"),
        (
            "hpi_config: {backend_config: {cpu_num_thread: 1}}",
            r"hpi_config: backend_config.cpu_num_thread: .* mean 'cpu_num_threads'\?",
        ),
        ("hpi_config: {backend_config: {precision: int8}}", "hpi_config: backend_config.precision"),
    ],
)
def test_misspelt_settings_are_errors(
    top: str, message: str, tmp_path: Path, colour_model: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"pipeline_name: semantic_segmentation\n{top}")
    with pytest.raises(ConfigError, match=message):
        segrt.create_pipeline(file, model_dir=colour_model, device="cpu")
