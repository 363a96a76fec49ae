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


def test_a_paddlex_file_is_accepted_unchanged(tmp_path: Path) -> None:
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
        ("- 1", "the whole"),
        ("pipeline_name: ocr", "unknown pipeline 'ocr'"),
        ("pipeline_name: semantic_segmentation\nx: 1", "x: Extra inputs"),
        ("SubModules: {SemanticSegmentation: {batch_size: 0}}", "batch_size"),
        ("SubModules: {SemanticSegmentation: {target_size: big}}", "target_size 'big' is not valid"),
        ("a: [", "not readable YAML"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
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
