from __future__ import annotations

from pathlib import Path

import pytest

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
