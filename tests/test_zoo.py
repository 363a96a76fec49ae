from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from segrt import zoo
from segrt.errors import ConfigError, ModelError

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

SMALL = """\
base_url: https://example.org/base
published: {source: s, gpu: g, cpu: c, normal: a, high_performance: b}
datasets:
  - name: two
    ignore_index: 255
    classes:
      cat: [1, 2, 3]
      dog: [4, 5, 6]
models:
  - name: Net (slice)
    dataset: two
    miou: 50
    gpu_ms: 1.5
    archives:
      - path: a/Net (slice)_infer.tar
"""


def official() -> list[zoo.ModelSpec]:
    return [spec for spec in zoo.load().models if not spec.bundled]


def test_18_official_models_and_the_bundled_default() -> None:
    assert len(official()) == 18
    assert [spec.name for spec in zoo.load().models if spec.bundled] == [zoo.DEFAULT_MODEL]


def test_figures_equal_the_published_table() -> None:
    table = SHARED / "MODEL_TABLE.md"
    if not table.exists():
        pytest.skip(f"needs {table}, which is not part of the repository")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.read_text("utf-8").splitlines()
    ]
    figures = {
        row[0]: row[1:]
        for row in rows
        if len(row) == 5 and row[0] != "model" and not row[0].startswith("-")
    }
    assert len(figures) == 18

    def shown(timing: zoo.Timing | float | None) -> list[float]:
        assert timing
        return (
            [timing.normal, timing.high_performance] if isinstance(timing, zoo.Timing) else [timing]
        )

    for spec in official():
        miou, gpu, cpu, size = figures.pop(spec.name)
        assert spec.miou == float(miou), spec.name
        assert spec.size_mb == float(size), spec.name
        assert shown(spec.gpu_ms) == [float(ms) for ms in gpu.split("/")], spec.name
        assert shown(spec.cpu_ms) == [float(ms) for ms in cpu.split("/")], spec.name
    assert not figures


@pytest.mark.parametrize("spec", official(), ids=lambda spec: spec.name)
def test_archive_paths_equal_the_published_ones(spec: zoo.ModelSpec) -> None:
    first, *others = spec.archives
    assert first.path == f"official_inference_model/paddle3.0rc0/{spec.name}_infer.tar"
    sliced = spec.name.endswith("(slice)")
    assert bool(spec.slide) == sliced == bool(others)
    if others:
        plain = spec.name.removesuffix("(slice)").strip()
        assert [archive.path for archive in others] == [
            f"official_inference_model/paddle3.0.0/{plain}_infer.tar"
        ]


@pytest.mark.parametrize(
    ("prefix", "dataset"),
    [
        ("PP-LiteSeg", "cityscapes"),
        ("OCRNet", "cityscapes"),
        ("Deeplabv3-", "cityscapes"),
        ("Deeplabv3_Plus", "cityscapes"),
        ("SegFormer", "cityscapes"),
        ("SeaFormer", "ade20k"),
    ],
)
def test_dataset_of_each_family(prefix: str, dataset: str) -> None:
    family = [spec for spec in official() if spec.name.startswith(prefix)]
    assert family
    assert {spec.dataset.name for spec in family} == {dataset}


def test_classes_and_palettes() -> None:
    cityscapes, ade20k, camvid = zoo.load().datasets
    assert [len(dataset.classes) for dataset in (cityscapes, ade20k, camvid)] == [19, 150, 11]
    assert [dataset.ignore_index for dataset in (cityscapes, ade20k, camvid)] == [255, 255, 11]
    assert " ".join(name.replace(" ", "-") for name in cityscapes.class_names) == (
        "road sidewalk building wall fence pole traffic-light traffic-sign vegetation terrain sky "
        "person rider car truck bus train motorcycle bicycle"
    )
    assert cityscapes.palette[0] == (128, 64, 128)
    assert cityscapes.palette[10:13] == ((70, 130, 180), (220, 20, 60), (255, 0, 0))
    assert cityscapes.palette[18] == (119, 11, 32)
    for index, name, colour in [
        (0, "wall", (120, 120, 120)),
        (1, "building", (180, 120, 120)),
        (2, "sky", (6, 230, 230)),
        (7, "bed", (204, 5, 255)),
        (12, "person", (150, 5, 61)),
        (48, "skyscraper", (140, 140, 140)),
        (76, "boat", (173, 255, 0)),
        (89, "television", (0, 255, 194)),
        (100, "poster", (143, 255, 0)),
        (130, "screen", (0, 204, 255)),
        (149, "flag", (92, 0, 255)),
    ]:
        assert ade20k.class_names[index] == name
        assert ade20k.palette[index] == colour, name
    assert camvid.class_names[3:5] == ("Road", "Pavement")
    assert camvid.palette[3:5] == ((128, 64, 128), (60, 40, 222))


def test_classes_of_the_bundled_model_match_its_metadata() -> None:
    file = SHARED / "models" / zoo.DEFAULT_MODEL / "inference.yml"
    if not file.exists():
        pytest.skip(f"needs {file}, which is not part of the repository")
    spec = zoo.get(zoo.DEFAULT_MODEL)
    assert (
        list(spec.class_names)
        == yaml.safe_load(file.read_text("utf-8"))["PostProcess"]["label_list"]
    )
    assert spec.licence
    assert "CC BY-NC 4.0" in spec.licence


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("segformer-b0", "SegFormer-B0 (slice)"),
        ("SegFormer-B0(slice)", "SegFormer-B0 (slice)"),
        (" SeaFormer_base (slice) ", "SeaFormer_base(slice)"),
        ("PP-LiteSeg-T", "PP-LiteSeg-T"),
        ("pp-liteseg-t", "PP-LiteSeg-T"),
        ("pp-liteseg-t_CAMVID", "PP-LiteSeg-T_camvid"),
    ],
)
def test_names_ignore_case_blanks_and_the_slice_suffix(typed: str, name: str) -> None:
    assert zoo.get(typed).name == name


def test_unknown_name_error_suggests_and_lists_models() -> None:
    with pytest.raises(ModelError, match="unknown model 'PP-LiteSegT'") as caught:
        zoo.get("PP-LiteSegT")
    message = str(caught.value)
    assert "did you mean 'PP-LiteSeg-T'?" in message
    assert all(spec.name in message for spec in zoo.load().models)
    assert "\n" not in message
    for name in ("", "PP-LiteSeg-T (slice)", "no such thing at all\n"):
        with pytest.raises(ModelError) as caught:
            zoo.get(name)
        assert "\n" not in str(caught.value)


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        zoo.get("PP-LiteSeg-T").miou = 99  # type: ignore[misc]
    assert zoo.load() is zoo.load()


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("miou: 50", "miou: 101", "12: models.0.miou", "less than or equal to 100, not 101"),
        ("miou: 50", "miuo: 50", "10: models.0.miou", "missing"),
        ("miou: 50", "miou: 50\n    mode: x", "13: models.0.mode", "no such key"),
        ("gpu_ms: 1.5", "gpu_ms: {normal: 1}", "13: models.0.gpu_ms.high_performance", "missing"),
        ("gpu_ms: 1.5", "gpu_ms: fast", "13: models.0.gpu_ms", "not 'fast'"),
        (
            "dataset: two",
            "dataset: coco",
            "11: models.0.dataset",
            "unknown dataset 'coco': use one of two",
        ),
        (
            "dog: [4",
            "dog: [256",
            "8: datasets.0.classes.dog.0",
            "less than or equal to 255, not 256",
        ),
        ("dog:", "cat:", "8: cat", "the key stands in line 7 already"),
        ("{source: s,", "{source: s, gpu: h,", "2: gpu", "the key stands in line 2 already"),
        ("a/Net", "../Net", "15: models.0.archives.0.path", "pattern"),
        ("archives:", "bundled: x\n    archives:", "10: models.0", "one of archives and bundled"),
        ("models:", "models: [", "10", "expected"),
        ("SMALL", "", "1: the whole", "valid dictionary"),
    ],
)
def test_errors_contain_file_line_and_key(
    tmp_path: Path, old: str, new: str, where: str, what: str
) -> None:
    file = tmp_path / "zoo.yaml"
    file.write_text("" if old == "SMALL" else SMALL.replace(old, new), "utf-8")
    with pytest.raises(ConfigError, match=re.escape(what)) as caught:
        zoo.load(file)
    assert str(caught.value).startswith(f"{file}:{where}")
    assert "\n" not in str(caught.value)


def test_duplicate_model_names_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "zoo.yaml"
    file.write_text(
        SMALL + SMALL[SMALL.index("  - name: Net") :].replace("Net (slice)", "NET"), "utf-8"
    )
    with pytest.raises(ConfigError, match=r"models: 'NET' and 'Net \(slice\)' answer to one name"):
        zoo.load(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        zoo.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["MaskFormer_tiny", "maskformer_small"])
def test_models_of_paddlex_that_cannot_run_say_why(name: str) -> None:
    with pytest.raises(
        ModelError,
        match=r"^segrt can't run MaskFormer_\w+: it predicts masks .*; use one of OCRNet",
    ) as caught:
        zoo.get(name)
    assert "\n" not in str(caught.value)
    known = {spec.name for spec in zoo.load().models if spec.archives}
    assert len(known) + len(zoo.load().unsupported) == 20  # as many as PaddleX 3.7.2 lists
