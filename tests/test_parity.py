"""Every behaviour of PaddleX 3.7.2 that segrt matches, and every defect that it fixes."""

from __future__ import annotations

import base64
import inspect
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError
from urllib.request import urlopen

import cv2
import hostile
import machines
import numpy as np
import numpy.typing as npt
import onnx
import pypdfium2
import pytest
import yaml
from clips import write_clip
from PIL import Image
from tars import model_tar

import segrt
from segrt import SegFailure, SegResult, cli, store, zoo
from segrt.backends import catalog
from segrt.backends.plan import BACKENDS, Plan, plans
from segrt.backends.session import Session
from segrt.description import Given
from segrt.metadata import KEY
from segrt.preprocess import Transforms
from segrt.types import DEVICE_KINDS, Device, LabelFormat, Mode, SizeLike

Save = Callable[[str, npt.NDArray[np.uint8]], Path]
Pixels = npt.NDArray[np.uint8]
Sizes = list[tuple[int, int]]
Segrt = Callable[..., int]

SAMPLE = Path(segrt.__file__).with_name("models") / "sample.png"
SUFFIXES = "bmp dib jpeg jpg png webp pbm pgm ppm pnm sr ras tiff tif".split()  # noqa: SIM905


@pytest.fixture
def pipeline(colour_model: Path) -> segrt.Pipeline:
    return segrt.create_pipeline(model_dir=colour_model, device="cpu")


@pytest.fixture
def result(pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels) -> SegResult:
    return _one(pipeline.predict(save_image("road.png", tiles)))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """The (height, width) of each batch passed to a network, in order."""
    seen: Sizes = []
    run = Session.run

    def spy(self: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        seen.append((batch.shape[2], batch.shape[3]))
        return run(self, batch)

    monkeypatch.setattr(Session, "run", spy)
    return seen


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Segrt:
    """Run the console script `segrt` in this process; returns the exit status."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))  # where results are saved by default

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["segrt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of a server for the files in `tmp_path`, which ignores query strings."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _all(items: Iterator[SegResult | SegFailure]) -> list[SegResult]:
    found = list(items)
    assert all(isinstance(item, SegResult) for item in found), found
    return [item for item in found if isinstance(item, SegResult)]


def _one(items: Iterator[SegResult | SegFailure]) -> SegResult:
    (only,) = _all(items)
    return only


def _pdf(file: Path, pages: int, size: tuple[int, int] = (36, 24)) -> Path:
    """Write a PDF of blank pages; `size` is (width, height) in points."""
    first, *more = [Image.new("RGB", size, "white") for _ in range(pages)]
    first.save(file, save_all=True, append_images=more, resolution=72)
    return file


def _config(**module: object) -> dict[str, Any]:
    return {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": module},
    }


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ---- Python: match


def test_match_create_pipeline_accepts_the_arguments_of_paddlex(colour_model: Path) -> None:
    parameters = inspect.signature(segrt.create_pipeline).parameters
    paddlex = {
        "pipeline": None,
        "config": None,
        "device": None,
        "engine": None,
        "engine_config": None,
        "pp_option": None,
        "use_hpip": None,
        "hpi_config": None,
    }
    assert {name: parameters[name].default for name in paddlex} == paddlex
    assert next(iter(parameters)) == "pipeline"
    named = {name: p for name, p in parameters.items() if name not in ("pipeline", "unknown")}
    assert all(p.kind is p.KEYWORD_ONLY for p in named.values())
    assert {"mode", "model_name", "model_dir"} <= parameters.keys()
    fast = {"hpi_config": {"backend": "cpu", "threads": 1}, "model_dir": colour_model}
    for switch in ({"use_hpip": True}, {"mode": "high-performance"}):
        made = segrt.create_pipeline(**fast, **switch)  # type: ignore[arg-type]
        assert made.session.plan.threads == 1


def test_match_config_overrides_pipeline_and_must_agree_with_it(colour_model: Path) -> None:
    config = _config(model_dir=str(colour_model), batch_size=3)
    assert segrt.create_pipeline("semantic_segmentation", config=config).batch_size == 3
    with pytest.raises(segrt.ConfigError, match="disagree"):
        segrt.create_pipeline("OCR", config=config)


def test_match_pipeline_can_be_the_path_of_a_paddlex_yaml(
    tmp_path: Path, colour_model: Path
) -> None:
    file = tmp_path / "semantic_segmentation.yaml"
    module = {
        "module_name": "semantic_segmentation",
        "model_name": "PP-LiteSeg-T",
        "model_dir": str(colour_model),
    }
    file.write_text(yaml.safe_dump(_config(**module, batch_size=1, target_size="None")))
    pipeline = segrt.create_pipeline(pipeline=file)
    assert (pipeline.batch_size, pipeline.target_size) == (1, None)


def test_match_yaml_text_none_is_null(colour_model: Path) -> None:
    config = _config(model_name="None", model_dir=str(colour_model), target_size="None")
    assert segrt.create_pipeline(config=config).target_size is None


def test_match_default_model_needs_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path))
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    pipeline = segrt.create_pipeline(pipeline="semantic_segmentation", device="cpu")
    assert pipeline.model_name == "PP-LiteSeg-T_camvid"
    assert set(_one(pipeline.predict(SAMPLE)).areas()) > {"Sky", "Road"}


def test_match_pp_liteseg_t_is_the_official_model_and_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path))
    assert zoo.get("PP-LiteSeg-T").dataset.name == "cityscapes"
    with pytest.raises(segrt.ModelError, match='segrt models fetch "PP-LiteSeg-T"'):
        segrt.create_pipeline(config=_config(model_name="PP-LiteSeg-T"))


def test_match_predict_signature() -> None:
    parameters = inspect.signature(segrt.Pipeline.predict).parameters
    assert list(parameters)[1:3] == ["input", "target_size"]
    assert all(parameters[name].default is None for name in ("target_size", "device", "batch_size"))
    assert all(
        parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("device", "batch_size")
    )


def test_match_predict_is_lazy_over_folders_and_documents(
    pipeline: segrt.Pipeline,
    save_image: Save,
    tiles: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "abcdefgh":
        save_image(f"d/{name}.png", tiles)
    results = pipeline.predict(tmp_path / "d")
    assert iter(results) is results
    assert next(results)["input_path"].endswith("a.png")
    (tmp_path / "d" / "h.png").write_bytes(b"")  # read only when it is next
    with pytest.raises(segrt.InputError, match=r"h\.png is empty"):
        list(results)

    rendered = []
    render = pypdfium2.PdfPage.render

    def spy(page: Any, **options: Any) -> Any:
        rendered.append(page)
        return render(page, **options)

    monkeypatch.setattr(pypdfium2.PdfPage, "render", spy)
    pages = pipeline.predict(_pdf(tmp_path / "doc.pdf", 40))
    assert next(pages)["page_index"] == 0
    assert len(rendered) < 5
    assert len(list(pages)) == 39


def test_match_predict_is_lazy_over_videos(pipeline: segrt.Pipeline, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 12)
    results = pipeline.predict(clip)
    assert next(results)["page_index"] == 0
    assert [r["page_index"] for r in _all(results)] == list(range(1, 12))


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 1), (64, 96, 3), (64, 96, 4)])
def test_match_input_array(pipeline: segrt.Pipeline, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert _one(pipeline.predict(array)).labels.shape == (64, 96)


def test_match_input_array_is_bgr(pipeline: segrt.Pipeline) -> None:
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[:, :, 0] = 255
    assert _one(pipeline.predict(blue)).areas() == {"blue": 1}


def test_match_input_path_url_folder_and_nested_lists(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, site: str, tmp_path: Path
) -> None:
    path, inside = save_image("a.png", tiles), save_image("d/b.png", tiles)
    found = _all(pipeline.predict([str(path), [f"{site}/a.png", [str(tmp_path / "d")]], tiles]))
    assert [r["input_path"] for r in found] == [str(path), f"{site}/a.png", str(inside), None]
    assert all(np.array_equal(r.labels, found[0].labels) for r in found)


def test_match_input_also_path_bytes_pil_tuples_and_iterators(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, tile_labels: npt.NDArray[np.int32]
) -> None:
    path = save_image("a.png", tiles)
    picture = Image.fromarray(tiles[:, :, ::-1])
    for source in (
        path,
        path.read_bytes(),
        picture,
        (path, picture),
        iter([path]),
        (p for p in [tiles]),
    ):
        for one in _all(pipeline.predict(source)):
            np.testing.assert_array_equal(one.labels, tile_labels)


def test_match_folders_are_recursive_case_insensitive_and_sorted_by_full_path(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, tmp_path: Path
) -> None:
    for name in ("d/b.PNG", "d/a/z.JPeG", "d/c.bmp", "d/B/a.TIFF"):
        save_image(name, tiles)
    (tmp_path / "d" / "readme.txt").write_text("no image")
    found = [
        Path(r["input_path"]).relative_to(tmp_path / "d").as_posix()
        for r in _all(pipeline.predict(tmp_path))
    ]
    assert found == ["B/a.TIFF", "a/z.JPeG", "b.PNG", "c.bmp"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, "pdf"])
def test_match_extension(
    pipeline: segrt.Pipeline, tiles: Pixels, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "pdf":
        _pdf(file, 1)
    elif suffix in ("sr", "ras"):
        file.write_bytes(cv2.imencode(".ras", tiles)[1].tobytes())
    else:
        formats = {
            "jpg": "JPEG",
            "tif": "TIFF",
            "dib": "DIB",
            "pbm": "PPM",
            "pgm": "PPM",
            "pnm": "PPM",
        }
        Image.fromarray(tiles[:, :, ::-1]).save(file, formats.get(suffix, suffix))
    assert _one(pipeline.predict(tmp_path)).input_path == str(file)


def test_match_one_result_per_pdf_page_and_tiff_frame(
    pipeline: segrt.Pipeline, tiles: Pixels, tmp_path: Path
) -> None:
    _pdf(tmp_path / "doc.pdf", 3)
    picture = Image.fromarray(tiles[:, :, ::-1])
    picture.save(tmp_path / "scan.tif", save_all=True, append_images=[picture])
    found = _all(pipeline.predict([tmp_path / "doc.pdf", tmp_path / "scan.tif"]))
    assert [r["page_index"] for r in found] == [0, 1, 2, 0, 1]


def test_match_pdf_is_rendered_at_scale_2_by_default(
    pipeline: segrt.Pipeline, tmp_path: Path
) -> None:
    file = _pdf(tmp_path / "doc.pdf", 1, (120, 80))
    assert _one(pipeline.predict(file)).labels.shape == (160, 240)
    assert _one(pipeline.predict(file, pdf_scale=1)).labels.shape == (80, 120)


def test_match_pdf_page_with_too_many_pixels_is_an_error(
    pipeline: segrt.Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "poster.pdf").write_bytes(hostile.pdf(14_000, 14_000))
    with pytest.raises(segrt.InputError, match="178,956,970"):
        list(pipeline.predict(tmp_path / "poster.pdf"))


def test_match_transforms_of_inference_yml() -> None:
    image = np.full((4, 4, 3), (0, 51, 255), np.uint8)
    out = np.empty((3, 4, 4), np.float32)
    Transforms.parse([{"type": "Normalize"}]).write(image, out)
    # RGB, x / 255, mean and std 0.5
    np.testing.assert_allclose(out[:, 0, 0], [1, -0.6, -1], atol=1e-6)
    entry = {
        "type": "Resize",
        "target_size": 64,
        "keep_ratio": True,
        "size_divisor": 16,
        "interp": "LINEAR",
    }
    assert Transforms.parse([entry]).size((100, 200)) == (32, 64)


def test_match_the_18_models_list_a_bare_normalize(pipeline: segrt.Pipeline) -> None:
    assert len([spec for spec in zoo.load().models if not spec.bundled]) == 18
    bundled = segrt.create_pipeline("semantic_segmentation", device="cpu")
    assert bundled.transforms == pipeline.transforms == Transforms.parse([{"type": "Normalize"}])


@pytest.mark.parametrize(
    ("setting", "argument", "inferred"),
    [
        (None, None, (80, 112)),
        (64, None, (64, 64)),
        (64, -1, (80, 112)),
        (None, -1, (80, 112)),
        (-1, 64, (64, 64)),
    ],
)
def test_match_target_size_none_is_the_setting_and_minus_1_the_source_size(
    colour_model: Path, sizes: Sizes, setting: object, argument: SizeLike, inferred: tuple[int, int]
) -> None:
    pipeline = segrt.create_pipeline(
        config=_config(model_dir=str(colour_model), target_size=setting)
    )
    list(pipeline.predict(np.zeros((80, 112, 3), np.uint8), argument))
    assert sizes == [inferred]


def test_match_target_size_n_fits_and_rounds_up_to_32(
    pipeline: segrt.Pipeline, sizes: Sizes
) -> None:
    wide, odd = np.zeros((1024, 2048, 3), np.uint8), np.zeros((333, 500, 3), np.uint8)
    list(pipeline.predict([wide, odd], 512))
    assert sizes == [(256, 512), (352, 512)]  # 2048x1024 runs at 512x256


def test_match_target_size_n_is_bilinear(pipeline: segrt.Pipeline) -> None:
    image = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    labels = _one(pipeline.predict(image, 64)).labels
    expected = (
        _one(pipeline.predict(np.asarray(small, np.uint8)))
        .labels.repeat(2, axis=0)
        .repeat(2, axis=1)
    )
    np.testing.assert_array_equal(labels, expected)


def test_match_target_size_pair_is_height_width(pipeline: segrt.Pipeline, sizes: Sizes) -> None:
    image = np.zeros((80, 112, 3), np.uint8)
    for pair in ((40, 72), [40, 72]):
        assert _one(pipeline.predict(image, pair)).labels.shape == (80, 112)
    assert sizes == [(40, 72)] * 2


def test_match_label_map_is_resized_by_nearest_neighbour(pipeline: segrt.Pipeline) -> None:
    image = np.random.default_rng(4).integers(0, 256, (90, 130, 3), np.uint8)
    small = np.asarray(cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR), np.uint8)
    inferred = _one(pipeline.predict(small)).labels.astype(np.uint8)
    expected = cv2.resize(inferred, (130, 90), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(_one(pipeline.predict(image, (64, 96))).labels, expected)


def test_match_res_is_a_mapping(result: SegResult) -> None:
    assert isinstance(result, MutableMapping)
    assert list(result) == ["input_path", "page_index", "input_img", "pred"]
    assert result["input_img"].shape == (64, 96, 3)
    assert result["pred"].shape == (1, 64, 96)
    assert result["pred"].dtype.kind == "i"
    assert result["page_index"] is None
    assert result["input_path"].endswith("road.png")


def test_match_res_json_and_img(result: SegResult) -> None:
    assert result.json.keys() == {"res"}
    assert result.json["res"]["pred"] == result["pred"].tolist()
    assert result.img.keys() == {"res"}
    assert (result.img["res"].mode, result.img["res"].size) == ("RGB", (96, 64))


def test_match_res_print(result: SegResult, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = inspect.signature(result.print).parameters
    assert {n: p.default for n, p in arguments.items()} == {
        "format_json": True,
        "indent": 4,
        "ensure_ascii": False,
        "json_format": None,
    }
    printed = {"res": {"input_path": result["input_path"], "page_index": None, "pred": "..."}}
    result.print()
    assert capsys.readouterr().out == json.dumps(printed, indent=4, ensure_ascii=False) + "\n"
    for name in ("format_json", "json_format"):  # the tutorial's and PaddleX 3.7.2's
        result.print(**{name: False})
        assert capsys.readouterr().out == f"{printed}\n"
    assert result.str == printed


def test_match_names_in_a_folder(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, tmp_path: Path
) -> None:
    save_image("in/a.jpg", tiles)
    _pdf(tmp_path / "in" / "doc.pdf", 4)
    save_image("in/one.tif", tiles)
    out = tmp_path / "output"
    for one in _all(pipeline.predict(tmp_path / "in")):
        one.save_to_img(f"{out}/")
        one.save_to_json(f"{out}/")
    pages = [f"doc_{page}_res" for page in range(4)]
    assert {p.name for p in out.glob("*.json")} == {
        f"{s}.json" for s in ["a_res", *pages, "one_0_res"]
    }
    pictures = {p.name for p in out.iterdir() if p.suffix != ".json"}
    assert pictures == {"a_res.jpg", "a_res.png", *(f"{s}.png" for s in pages), "one_0_res.tif"}


def test_match_save_path_with_a_suffix_is_a_file(result: SegResult, tmp_path: Path) -> None:
    result.save_to_img(str(tmp_path / "new" / "labels.bmp"))
    result.save_to_json(str(tmp_path / "new" / "labels.json"))
    assert _names(tmp_path / "new") == ["labels.bmp", "labels.json"]


def test_match_default_palette_is_voc_without_its_first_entry(result: SegResult) -> None:
    picture = result.img["res"]
    colours = [picture.getpixel((x, 0)) for x in (0, 40, 80)]  # the classes 0, 1 and 2
    assert colours == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize("kind", DEVICE_KINDS[1:])
def test_match_device_kinds_run_or_raise(colour_model: Path, kind: str) -> None:
    assert Device.parse(f"{kind}:1,2") == Device(kind, (1, 2))
    with pytest.raises(segrt.DeviceError, match=f"{kind}:63"):
        segrt.create_pipeline(model_dir=colour_model, device=f"{kind}:63")


def test_match_unknown_device_error_lists_the_valid_ones(colour_model: Path) -> None:
    with pytest.raises(segrt.DeviceError) as caught:
        segrt.create_pipeline(model_dir=colour_model, device="tpu")
    assert all(kind in str(caught.value) for kind in DEVICE_KINDS)
    assert {"cpu", "gpu", "xpu", "npu", "mlu", "dcu", "gcu", "iluvatar_gpu", "metax_gpu"} == set(
        DEVICE_KINDS
    )


def test_match_default_device_is_gpu_0_if_it_works_else_the_cpu() -> None:
    assert str(plans(None, Mode.NORMAL, machines.GPU_T4)[0].name) == "cuda fp32"
    assert plans(None, Mode.NORMAL, machines.GPU_H100)[0].device_id == 0
    for machine in (machines.CPU_ONLY, machines.NO_CUDNN, machines.GPU_WHEEL_NO_GPU):
        assert plans(None, Mode.NORMAL, machine)[0].device == "cpu"


def test_match_gpu_0_1_splits_the_work_over_devices(
    colour_model: Path, save_image: Save, tiles: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two GPUs are fictional: their plans run on the CPU."""
    two_gpus = machines.machine("CUDA", gpus=(machines.H100, machines.H100))
    build, run = Session.__init__, Session.run
    both, gpus, ran = threading.Barrier(2, timeout=30), {}, []

    def init_on_cpu(self: Session, file: Path, plan: Plan, given: Given) -> None:
        build(self, file, replace(plan, backend=BACKENDS["cpu"], options=()), given)
        gpus[self] = plan.device_id

    def together(self: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        both.wait()  # until the other device is running too
        ran.append(gpus[self])
        return run(self, batch)

    monkeypatch.setattr(catalog, "read", lambda **_: two_gpus)
    monkeypatch.setattr(Session, "__init__", init_on_cpu)
    monkeypatch.setattr(Session, "run", together)
    pipeline = segrt.create_pipeline(model_dir=colour_model, device="gpu:0,1")
    paths = [save_image(f"{i}.png", tiles) for i in range(4)]
    assert [r.input_path for r in _all(pipeline.predict(paths))] == [str(p) for p in paths]
    assert sorted(ran) == [0, 0, 1, 1]


# ---- Command line: match


def test_match_cli_predict_verbatim(
    command: Segrt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = (
        f"--pipeline semantic_segmentation --input {SAMPLE} --target_size -1 "
        f"--save_path {tmp_path} --device cpu"
    )
    assert command(*form.split()) == 0
    assert (
        f"{{'res': {{'input_path': '{SAMPLE}', 'page_index': None, 'pred': '...'}}}}"
        in capsys.readouterr().out
    )
    assert _names(tmp_path) == ["sample_res.json", "sample_res.png"]


def test_match_cli_get_pipeline_config_verbatim(command: Segrt, tmp_path: Path) -> None:
    assert (
        command(
            *f"--get_pipeline_config semantic_segmentation --save_path {tmp_path}/my_path".split()
        )
        == 0
    )
    file = tmp_path / "my_path" / "semantic_segmentation.yaml"
    module = yaml.safe_load(file.read_text())["SubModules"]["SemanticSegmentation"]
    assert {"module_name", "model_name", "model_dir", "batch_size", "target_size"} <= module.keys()
    assert segrt.create_pipeline(pipeline=file, device="cpu").model_name == "PP-LiteSeg-T_camvid"


def test_match_cli_engine(
    command: Segrt, save_image: Save, tiles: Pixels, colour_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "pipeline_name: semantic_segmentation\nuse_hpip: True\nhpi_config: {backend: onnxruntime}\n"
        f"SubModules:\n  SemanticSegmentation:\n    model_dir: {colour_model}\n"
    )
    form = ["--pipeline", file, "--input", save_image("a.png", tiles), "--device", "cpu"]
    form += ["--save_path", tmp_path / "output"]
    for engine in ("paddle", "hpi", "onnxruntime"):
        assert command(*form, "--engine", engine) == 0
    assert command(*form, "--use_hpip", "--hpi_config", "{'backend': 'onnxruntime'}") == 0
    assert command(*form, "--engine", "transformers") == 2


def test_match_cli_use_hpip_and_hpi_config(
    command: Segrt, capsys: pytest.CaptureFixture[str]
) -> None:
    form = ["--pipeline", "semantic_segmentation", "--input", SAMPLE, "--use_hpip", "--hpi_config"]
    assert command(*form, '{"backend": "cpu", "threads": 1}') == 0
    assert "CPUExecutionProvider fp32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "inferred"),
    [
        ("-1", (64, 96)),
        ("512", (352, 512)),
        ("(512,256)", (512, 256)),
        ("[512,256]", (512, 256)),
        ("512,256", (512, 256)),
        ("None", (64, 96)),
    ],
)
def test_match_cli_spellings_of_target_size(
    command: Segrt,
    save_image: Save,
    tiles: Pixels,
    sizes: Sizes,
    text: str,
    inferred: tuple[int, int],
) -> None:
    photo = save_image("a.png", tiles)
    assert (
        command("--pipeline", "semantic_segmentation", "--input", photo, "--target_size", text) == 0
    )
    assert sizes == [inferred]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--pipeline", "semantic_segmentation", "--input", "gone.png"], 1),
        (["--pipeline", "semantic_segmentation", "--input", "gone.png", "--device", "npu:0"], 1),
        (["--pipeline", "semantic_segmentation"], 2),
        (["--pipeline", "semantic_segmentation", "--input", "a.png", "--nonsense"], 2),
        (["--pipeline", "semantic_segmentation", "--input", "a.png", "--target_size", "huge"], 2),
        (["--pipeline", "object_detection", "--input", "a.png"], 2),
    ],
)
def test_match_cli_exit_status_1_for_failures_2_for_usage_errors(
    command: Segrt, arguments: list[str], status: int
) -> None:
    assert command(*arguments) == status


def test_match_cli_additional_subcommands(
    command: Segrt,
    save_image: Save,
    tiles: Pixels,
    colour_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, output in (
        (["predict", save_image("a.png", tiles), "--model_dir", colour_model], "a.png: red "),
        (["config"], "pipeline_name: semantic_segmentation"),
        (["models"], "SegFormer-B0"),
        (["doctor"], "normal mode would run"),
    ):
        assert command(*arguments) == 0
        assert output in capsys.readouterr().out


# ---- Serving: match

PATH = "/semantic-segmentation"


@pytest.fixture
def serve(colour_model: Path) -> Iterator[Callable[..., Any]]:
    """A function that starts the server in this process and returns a client."""
    reason = "needs the serve extra"
    app = pytest.importorskip("segrt.serve.app", reason=reason)
    settings = pytest.importorskip("segrt.serve.settings", reason=reason)
    testclient = pytest.importorskip("fastapi.testclient", reason=reason)
    with ExitStack() as stack:

        def start(**options: object) -> Any:
            pipeline = segrt.create_pipeline(model_dir=colour_model, device="cpu")
            made = app.create_app(pipeline, settings.Settings(**options))
            return stack.enter_context(testclient.TestClient(made, raise_server_exceptions=False))

        yield start


def _base64(pixels: Pixels) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def test_match_serving_response_format(serve: Callable[..., Any], tiles: Pixels) -> None:
    answer = serve().post(PATH, json={"image": _base64(tiles)})
    body = answer.json()
    assert answer.status_code == 200
    assert body["logId"]
    assert (body["errorCode"], body["errorMsg"]) == (0, "Success")
    assert body["result"]["size"] == [64, 96]
    assert (
        body["result"]["labelMap"]
        == [0] * 32 + [1] * 32 + [2] * 32 + body["result"]["labelMap"][96:]
    )
    assert len(body["result"]["labelMap"]) == 64 * 96
    picture = Image.open(io.BytesIO(base64.b64decode(body["result"]["image"])))
    assert (picture.format, picture.size) == ("JPEG", (96, 64))


def test_match_serving_accepts_target_size_and_visualize(
    serve: Callable[..., Any], tiles: Pixels, sizes: Sizes
) -> None:
    client = serve()
    for size in (-1, 64, [40, 72], None):
        request = {"image": _base64(tiles), "targetSize": size, "visualize": False}
        assert client.post(PATH, json=request).json()["result"]["image"] is None
    assert sizes == [(64, 96), (64, 64), (40, 72), (64, 96)]


def test_match_serving_ignores_unknown_keys_and_reads_json_of_any_type(
    serve: Callable[..., Any], tiles: Pixels
) -> None:
    client = serve()
    body = json.dumps({"image": _base64(tiles), "logId": "a", "useDocUnwarping": False}).encode()
    for kind in (None, "application/x-www-form-urlencoded", "text/plain"):
        headers = {"Content-Type": kind} if kind else {}
        assert client.post(PATH, content=body, headers=headers).status_code == 200
    failed = client.post(PATH, json={"image": "@", "logId": "a"})
    assert (failed.status_code, failed.json()["logId"]) == (400, "a")


def test_match_serving_visualize_of_the_yaml(
    command: Segrt,
    colour_model: Path,
    tiles: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = pytest.importorskip("segrt.serve.app", reason="needs the serve extra")
    from starlette.testclient import TestClient

    file = tmp_path / "p.yaml"
    file.write_text(
        "pipeline_name: semantic_segmentation\nServing:\n  visualize: False\n"
        f"SubModules:\n  SemanticSegmentation:\n    model_dir: {colour_model}\n"
    )
    shown = []

    def run(pipeline: segrt.Pipeline, settings: Any, sock: socket.socket) -> None:
        sock.close()
        with TestClient(app.create_app(pipeline, settings)) as client:
            for asked in (None, True):
                request = {"image": _base64(tiles), "visualize": asked}
                result = client.post(PATH, json=request).json()["result"]
                shown.append(result["image"] is not None)

    monkeypatch.setattr("segrt.serve.server.run", run)
    monkeypatch.setattr("segrt.serve.logs.set_up", lambda as_json: None)
    assert command("serve", "--pipeline", file, "--port", "0", "--device", "cpu") == 0
    assert shown == [False, True]


def test_match_serving_accepts_a_url(
    serve: Callable[..., Any],
    save_image: Save,
    tiles: Pixels,
    site: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_image("a.png", tiles)
    client = serve(allow_urls=True)
    # Allow requests to this machine.
    monkeypatch.setattr("segrt.serve.fetch.is_public", lambda address: True)
    assert client.post(PATH, json={"image": f"{site}/a.png"}).json()["result"]["size"] == [64, 96]


def test_match_serving_failures_have_log_id_status_and_message(serve: Callable[..., Any]) -> None:
    answer = serve().post(PATH, json={})
    assert answer.status_code == 422
    assert answer.json().keys() == {"logId", "errorCode", "errorMsg"}
    assert answer.json()["errorCode"] == 422
    assert "'image' is missing" in answer.json()["errorMsg"]


def test_match_serving_health(serve: Callable[..., Any]) -> None:
    answer = serve().get("/health")
    assert answer.status_code == 200
    assert answer.json() | {"logId": ""} == {"logId": "", "errorCode": 0, "errorMsg": "Healthy"}


def test_match_cli_serve_verbatim() -> None:
    pytest.importorskip("segrt.serve.app", reason="needs the serve extra")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    form = f"--serve --pipeline semantic_segmentation --host 127.0.0.1 --port {port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "segrt", *form.split()], stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
                    assert answer.status == 200
                break
            except URLError:
                assert server.poll() is None, server.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        server.terminate()
        server.communicate(timeout=30)


# ---- Fixes


@pytest.mark.parametrize(
    ("setting", "inferred"), [(64, (64, 64)), ([48, 80], (48, 80)), ("64", (64, 64))]
)
def test_fix_01_target_size_of_the_yaml_is_used(
    tmp_path: Path, colour_model: Path, sizes: Sizes, setting: object, inferred: tuple[int, int]
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(_config(model_dir=str(colour_model), target_size=setting)))
    list(segrt.create_pipeline(file).predict(np.zeros((128, 128, 3), np.uint8)))
    assert sizes == [inferred]


def test_fix_02_batch_size_of_predict_is_used(
    pipeline: segrt.Pipeline, tiles: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    run = Session.run

    def spy(self: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        batches.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(Session, "run", spy)
    list(pipeline.predict([tiles] * 5, batch_size=2))
    assert batches == [2, 2, 1]


def test_fix_02_device_of_predict_is_used(
    colour_model: Path, save_image: Save, tiles: Pixels, tile_labels: npt.NDArray[np.int32]
) -> None:
    pipeline = segrt.create_pipeline(model_dir=colour_model)
    one = _one(pipeline.predict(tiles, device="cpu"))
    assert one.provider == "CPUExecutionProvider"
    np.testing.assert_array_equal(one.labels, tile_labels)
    with pytest.raises(segrt.DeviceError, match="gpu:63"):
        pipeline.predict(tiles, device="gpu:63")


def test_fix_03_path_tuple_pil_and_bytes_are_accepted_and_none_is_an_error(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels
) -> None:
    path = save_image("a.png", tiles)
    for source in (path, (path,), Image.open(path), path.read_bytes()):
        assert len(_all(pipeline.predict(source))) == 1
    for nothing in (None, [None]):
        with pytest.raises(segrt.InputError, match="an input of type NoneType can't be read"):
            list(pipeline.predict(nothing))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_fix_04_broken_file_is_an_error_at_its_position(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, tmp_path: Path, batch_size: int
) -> None:
    first, last = (
        save_image("a.png", tiles),
        save_image("z.png", np.ascontiguousarray(tiles[:, ::-1])),
    )
    broken, text = tmp_path / "b.png", tmp_path / "c.txt"
    broken.write_bytes(first.read_bytes()[:60])
    text.write_text("hello")
    found = list(
        pipeline.predict([first, broken, text, last], on_error="yield", batch_size=batch_size)
    )
    assert [item.input_path for item in found] == [str(p) for p in (first, broken, text, last)]
    assert [isinstance(item, SegFailure) for item in found] == [False, True, True, False]
    assert (found[0].labels[0, 0], found[3].labels[0, 0]) == (0, 2)  # type: ignore[union-attr]
    assert (
        len(
            list(
                pipeline.predict(
                    [first, broken, text, last], on_error="skip", batch_size=batch_size
                )
            )
        )
        == 2
    )
    with pytest.raises(segrt.InputError, match=r"b\.png"):
        list(pipeline.predict([first, broken], batch_size=batch_size))


def test_fix_05_input_order_of_files_and_folders_is_kept(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, tmp_path: Path
) -> None:
    first = save_image("z.png", tiles)
    inside = [save_image(f"d/{name}.png", tiles) for name in "abc"]
    for batch_size in (1, 2, 3):
        found = _all(pipeline.predict([first, tmp_path / "d"], batch_size=batch_size))
        assert [r.input_path for r in found] == [str(p) for p in (first, *inside)]


def test_fix_06_urls_with_queries_work_and_equal_names_do_not_overwrite(
    pipeline: segrt.Pipeline, save_image: Save, tiles: Pixels, site: str, tmp_path: Path
) -> None:
    save_image("x/a.png", tiles)
    save_image("y/a.png", np.ascontiguousarray(tiles[:, ::-1]))
    urls = [f"{site}/x/a.png?x=1", f"{site}/y/a.png?x=1"]
    found = _all(pipeline.predict(urls))
    assert [r["input_path"] for r in found] == urls
    assert [int(r.labels[0, 0]) for r in found] == [0, 2]
    for one in found:
        one.save_to_img(tmp_path / "out")
    assert _names(tmp_path / "out") == ["a_2_res.png", "a_res.png"]


def test_fix_07_equal_names_do_not_overwrite(
    pipeline: segrt.Pipeline,
    save_image: Save,
    tiles: Pixels,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = [
        save_image("x/a.png", tiles),
        save_image("y/a.png", np.ascontiguousarray(tiles[:, ::-1])),
    ]
    for one in _all(pipeline.predict(paths)):
        one.save_to_img(tmp_path / "out")
        one.save_to_json(tmp_path / "out")
    assert _names(tmp_path / "out") == ["a_2_res.json", "a_2_res.png", "a_res.json", "a_res.png"]
    assert [
        int(np.asarray(Image.open(tmp_path / "out" / n))[0, 0])
        for n in ("a_res.png", "a_2_res.png")
    ] == [0, 2]
    assert "is saved as a_2: another input of this call is saved as a" in caplog.text


def test_fix_08_jpeg_is_accompanied_by_a_lossless_label_image(
    pipeline: segrt.Pipeline, save_image: Save, tmp_path: Path
) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 96, 3), np.uint8)
    one = _one(pipeline.predict(save_image("a.jpg", noise)))
    picture, labels = one.save_to_img(tmp_path / "out")
    assert (picture.name, labels.name) == ("a_res.jpg", "a_res.png")
    stored = Image.open(labels)
    assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(stored), one.labels)
    assert len(stored.convert("RGB").getcolors() or ()) == len(one.areas())


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in ("jpg", "jpeg")])
def test_fix_08_other_formats_are_lossless(result: SegResult, tmp_path: Path, suffix: str) -> None:
    (written,) = result.save_to_img(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(
        np.asarray(Image.open(written).convert("RGB")), np.asarray(result.img["res"])
    )


def test_fix_09_json_of_a_2048x1024_image_is_small(
    pipeline: segrt.Pipeline, tmp_path: Path
) -> None:
    blocks = (
        np.random.default_rng(6).integers(0, 256, (16, 32, 3), np.uint8).repeat(64, 0).repeat(64, 1)
    )
    one = _one(pipeline.predict(blocks))
    assert one.labels.shape == (1024, 2048)
    sizes = {
        form: one.save_to_json(tmp_path / form, label_format=form).stat().st_size
        for form in get_args(LabelFormat)
    }
    assert (
        json.loads((tmp_path / "list" / "image_res.json").read_text())["pred"]
        == one["pred"].tolist()
    )
    assert sizes["list"] < 5e6
    assert sizes["rle"] < 5e5
    assert sizes["png"] < 5e5


def test_fix_10_batch_of_images_of_different_sizes(pipeline: segrt.Pipeline) -> None:
    rng = np.random.default_rng(7)
    images = [
        rng.integers(0, 256, (h, w, 3), np.uint8)
        for h, w in ((64, 96), (33, 50), (64, 96), (40, 40))
    ]
    together, apart = (
        _all(pipeline.predict(images, batch_size=4)),
        _all(pipeline.predict(images, batch_size=1)),
    )
    for a, b, image in zip(together, apart, images, strict=True):
        assert a.labels.shape == image.shape[:2]
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("pair", [[-1, -1], (-1, -1), "[-1,-1]", "-1,-1"])
def test_fix_11_pair_of_minus_1_is_the_source_size(
    pipeline: segrt.Pipeline, sizes: Sizes, pair: SizeLike
) -> None:
    list(pipeline.predict(np.zeros((44, 52, 3), np.uint8), pair))
    assert sizes == [(44, 52)]


def test_fix_12_class_names_scores_legend_and_overlay(
    pipeline: segrt.Pipeline, tiles: Pixels, tmp_path: Path
) -> None:
    one = _one(pipeline.predict(tiles, scores=True))
    assert one.class_names == ("red", "green", "blue")
    assert one.scores is not None
    assert one.scores.shape == (64, 96)
    assert 1 / 3 < one.scores.min() <= one.scores.max() <= 1
    assert one.areas() == pytest.approx({"red": 1 / 3, "green": 1 / 3, "blue": 1 / 3})
    colours = {c for _, c in one.legend().getcolors(1 << 16) or ()}
    assert {tuple(map(int, c)) for c in one.palette[:3]} <= colours
    overlay = one.overlay(0.5, legend=False)
    np.testing.assert_allclose(
        np.asarray(overlay)[0, 0], (np.array([250, 0, 0]) + one.palette[0]) / 2, atol=1
    )
    assert one.overlay().width > 96  # includes the legend
    assert one.save_overlay(tmp_path).name == "image_overlay.png"


@pytest.mark.parametrize(
    ("image", "status", "message"),
    [
        ("@@@", 400, "not valid base64"),
        (base64.b64encode(b"hello").decode(), 400, "not an image"),
        ("http://127.0.0.1:9/a.png", 424, "127.0.0.1"),
        ("http://169.254.169.254/latest/meta-data", 424, "169.254.169.254"),
        ("file:///etc/passwd", 400, "not fetched"),
    ],
)
def test_fix_13_bad_image_is_a_client_error_and_private_hosts_are_rejected(
    serve: Callable[..., Any], image: str, status: int, message: str
) -> None:
    answer = serve(allow_urls=True).post(PATH, json={"image": image})
    assert (answer.status_code, answer.json()["errorCode"]) == (status, status)
    assert message in answer.json()["errorMsg"]


def test_fix_13_url_with_status_404_is_reported(
    serve: Callable[..., Any], site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(allow_urls=True)
    # Allow requests to this machine.
    monkeypatch.setattr("segrt.serve.fetch.is_public", lambda address: True)
    answer = client.post(PATH, json={"image": f"{site}/gone.png"})
    assert answer.status_code == 424
    assert "the server answers 404" in answer.json()["errorMsg"]


def test_fix_13_bodies_are_limited(serve: Callable[..., Any], tiles: Pixels) -> None:
    client = serve(max_body=100_000)
    assert client.post(PATH, json={"image": _base64(tiles)}).status_code == 200
    answer = client.post(PATH, json={"image": "A" * 100_000})
    assert answer.status_code == 413
    assert "larger than 100,000 bytes" in answer.json()["errorMsg"]


def test_fix_13_requests_run_concurrently(
    serve: Callable[..., Any], tiles: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    run = Session.run

    def spy(self: Session, batch: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        batches.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(Session, "run", spy)
    client, body = serve(max_delay_ms=3000, max_batch=4), {"image": _base64(tiles)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(PATH, json=body).status_code, range(4)))
    assert answers == [200] * 4
    assert max(batches) > 1


@pytest.mark.parametrize("mode", ["normal", "high-performance"])
def test_fix_14_missing_gpu_is_an_error(
    colour_model: Path, command: Segrt, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(segrt.DeviceError, match="gpu:63"):
        segrt.create_pipeline(model_dir=colour_model, device="gpu:63", mode=mode)
    form = [
        "--pipeline",
        "semantic_segmentation",
        "--input",
        SAMPLE,
        "--device",
        "gpu:63",
        "--mode",
        mode,
    ]
    assert command(*form) == 1
    assert "gpu:63" in capsys.readouterr().err


def test_fix_14_result_reports_its_provider(result: SegResult) -> None:
    assert (result.provider, result.precision) == ("CPUExecutionProvider", "fp32")


def test_fix_15_downloads_are_hashed_and_can_be_mirrored_or_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, spec = tmp_path / "mirror", zoo.get("PP-LiteSeg-T")
    archive = mirror / spec.archives[0].path
    archive.parent.mkdir(parents=True)
    archive.write_bytes(model_tar())
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGRT_OFFLINE", "1")
    with pytest.raises(
        segrt.DownloadError,
        match=r"SEGRT_OFFLINE forbids network access: put .*, or set SEGRT_MIRROR",
    ):
        store.fetch(spec, progress=False)
    monkeypatch.setenv("SEGRT_MIRROR", str(mirror))
    assert store.fetch(spec, progress=False).read_bytes() == archive.read_bytes()
    store.remove(spec.name)
    archive.write_bytes(model_tar(weights=b"changed"))
    with pytest.raises(segrt.DownloadError, match=r"has sha256 [0-9a-f]{64}, not [0-9a-f]{64}"):
        store.fetch(spec, progress=False)
    assert store.archive_path(spec) is None


def test_fix_15_mirror_can_be_a_server(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = zoo.get("PP-LiteSeg-T")
    archive = tmp_path / "mirror" / spec.archives[0].path
    archive.parent.mkdir(parents=True)
    archive.write_bytes(model_tar())
    monkeypatch.setenv("SEGRT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGRT_MIRROR", f"{site}/mirror")
    assert store.fetch(spec, progress=False).read_bytes() == archive.read_bytes()


def test_fix_16_pp_liteseg_runs_accelerated_on_the_cpu_at_any_size() -> None:
    hpi = {"backend": "openvino"}
    try:
        fast = segrt.create_pipeline(
            "semantic_segmentation", device="cpu", use_hpip=True, hpi_config=hpi
        )
    except segrt.DeviceError as error:
        pytest.skip(str(error))
    plain = segrt.create_pipeline("semantic_segmentation", device="cpu")
    for size in (-1, (256, 512), (320, 480)):
        a, b = _one(fast.predict(SAMPLE, size)), _one(plain.predict(SAMPLE, size))
        assert a.provider == "OpenVINOExecutionProvider"
        assert float(np.mean(a.labels == b.labels)) > 0.99


def test_fix_16_bundled_onnx_has_dynamic_size_and_standard_operators() -> None:
    path = store.require(zoo.get(zoo.DEFAULT_MODEL))
    model = onnx.load(io.BytesIO(path.read_bytes()))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [0, 3, 0, 0]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert KEY in {p.key for p in model.metadata_props}
    onnx.checker.check_model(model)
