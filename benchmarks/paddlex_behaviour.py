"""Run PaddleX 3.7.2 in the 16 cases of docs/coming-from-paddlex.md and print what it does.

    make .venv-paddlex/.ready
    .venv-paddlex/bin/python benchmarks/paddlex_behaviour.py MODEL

MODEL is a folder with a Paddle inference model. Case 13 requires `paddlex[serving]` and case 16
`paddle2onnx` in the same environment; a case that can't run prints why. Each case prints its title,
its results, the exceptions raised, and what PaddleX logged.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
# With oneDNN, PP-LiteSeg fails on the second image size (RuntimeError: std::exception), which would
# hide the behaviour to show.
os.environ.setdefault("PADDLE_PDX_ENABLE_MKLDNN_BYDEFAULT", "False")

CASES: dict[int, tuple[str, Callable[[], None]]] = {}
MODEL = Path()
WORK = Path()


def case(number: int, title: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a case."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        CASES[number] = (title, function)
        return function

    return register


def main() -> None:
    """Run all cases, or those requested."""
    global MODEL, WORK  # noqa: PLW0603
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "model", type=Path, help="folder with a Paddle inference model of PP-LiteSeg"
    )
    parser.add_argument(
        "--case",
        type=int,
        action="append",
        choices=range(1, 17),
        help="run only this case; repeatable",
    )
    chosen = parser.parse_args()
    MODEL = chosen.model.absolute()
    packages = ("paddlex", "paddlepaddle")
    print(
        ", ".join(f"{package} {version(package)}" for package in packages)
        + f", Python {sys.version.split()[0]}"
    )
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        os.chdir(folder)
        for number, (title, function) in sorted(CASES.items()):
            if chosen.case and number not in chosen.case:
                continue
            print(f"\n## {number}. {title}")
            with showing_log():
                function()


def say(text: object) -> None:
    """Print a line, without the names of temporary folders."""
    line = " ".join(str(text).split()).replace(f"{WORK}/", "").replace(str(MODEL), "MODEL")
    line = re.sub(r"(127\.0\.0\.1:|at 0x)[0-9A-F]+", r"\1...", line)
    print(f"  {line[:400]}", flush=True)


@contextmanager
def showing_log() -> Iterator[None]:
    """Print PaddleX's warnings and errors."""

    class Repeat(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"log {record.levelname}: {record.getMessage()}")

    handler = Repeat(logging.WARNING)
    logger = logging.getLogger("paddlex")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def config(**module: Any) -> dict[str, Any]:
    """A pipeline configuration for the model."""
    name = yaml.safe_load((MODEL / "inference.yml").read_text("utf-8"))["Global"]["model_name"]
    settings = {"module_name": "semantic_segmentation", "model_name": name, "model_dir": str(MODEL)}
    settings |= {"batch_size": 1, "target_size": None, **module}
    return {
        "pipeline_name": "semantic_segmentation",
        "SubModules": {"SemanticSegmentation": settings},
    }


def pipeline(device: str = "cpu", **module: Any) -> Any:
    """PaddleX's pipeline for the model."""
    from paddlex import create_pipeline

    return create_pipeline(config=config(**module), device=device)


def image(name: str, size: tuple[int, int] = (128, 128), seed: int = 0) -> str:
    """Write an image of coloured blocks; returns its path."""
    path = WORK / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8
    )
    Image.fromarray(pixels.repeat(16, 0).repeat(16, 1)).save(path)
    return str(path)


def names(pipe: Any, source: object) -> list[str | None]:
    """The `input_path` of each result."""
    return [
        r["input_path"] and os.path.relpath(r["input_path"], WORK) for r in pipe.predict(source)
    ]


def count(pipe: Any, source: object, **options: Any) -> int:
    """Number of results."""
    return len(list(pipe.predict(source, **options)))


def attempt(what: str, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Print what a call returns or raises."""
    try:
        say(f"{what} -> {function(*arguments, **options)}")
    except Exception as error:
        say(f"{what} -> raises {type(error).__name__}: {error}")


@contextmanager
def site() -> Iterator[str]:
    """Serve the working folder, ignoring query strings; yields the URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(WORK))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@case(1, "target_size of the YAML")
def _yaml_target_size() -> None:
    photo = image("a.png", (256, 384))
    plain, small = pipeline(), pipeline(target_size=64)
    original = next(iter(plain.predict(photo)))["pred"]
    argument = next(iter(plain.predict(photo, target_size=64)))["pred"]
    setting = next(iter(small.predict(photo)))["pred"]
    say(f"predict(target_size=64) changes {np.mean(original != argument):.1%} of the labels")
    say(f"target_size: 64 in the YAML changes {np.mean(original != setting):.1%}")


@case(2, "predict(device=..., batch_size=...)")
def _predict_arguments() -> None:
    photos = [image(f"{i}.png", seed=i) for i in range(4)]
    pipe = pipeline()
    inner = _find(pipe, "semantic_segmentation_model")
    sizes: list[int] = []
    process = inner.process

    def recording(batch: Any, **options: Any) -> Any:
        sizes.append(len(batch))
        return process(batch, **options)

    inner.process = recording
    attempt(
        "results of 4 images, device='gpu:9', batch_size=4",
        count,
        pipe,
        photos,
        device="gpu:9",
        batch_size=4,
    )
    say(f"batches that ran: {sizes}")


def _find(thing: Any, name: str) -> Any:
    """The attribute with this name, of `thing` or of an object that it wraps."""
    if name in vars(thing):
        return vars(thing)[name]
    for value in vars(thing).values():
        for one in value if isinstance(value, list) else [value]:
            if (
                type(one).__module__.startswith("paddlex")
                and (found := _find(one, name)) is not None
            ):
                return found
    return None


@case(3, "A path, tuple, PIL image, bytes or None")
def _kinds_of_input() -> None:
    photo = image("a.png")
    pipe = pipeline()
    inputs = {
        "Path": Path(photo),
        "tuple": (photo,),
        "PIL": Image.open(photo),
        "bytes": Path(photo).read_bytes(),
    }
    for kind, value in {**inputs, "None": None}.items():
        logging.getLogger("paddlex").setLevel(
            logging.CRITICAL if kind == "bytes" else logging.WARNING
        )
        attempt(f"{kind}: results", count, pipe, value)
    logging.getLogger("paddlex").setLevel(logging.WARNING)


@case(4, "An unsupported or broken file in a list")
def _broken_file() -> None:
    good, text, broken = image("a.png"), WORK / "b.txt", WORK / "c.png"
    text.write_text("hello")
    broken.write_bytes(Path(good).read_bytes()[:60])
    last = image("z.png", seed=1)
    for size in (1, 2):
        pipe = pipeline(batch_size=size)
        attempt(f"batch_size {size}, [a.png, b.txt, z.png]", names, pipe, [good, str(text), last])
        attempt(
            f"batch_size {size}, [a.png, c.png (cut short), z.png]",
            names,
            pipe,
            [good, str(broken), last],
        )


@case(5, "A file listed before a folder")
def _order() -> None:
    first = image("z.png")
    for name in "abc":
        image(f"d/{name}.png")
    for size in (1, 2):
        pipe = pipeline(batch_size=size)
        attempt(f"batch_size {size}, [z.png, d/]", names, pipe, [first, str(WORK / "d")])


@case(6, "URLs")
def _urls() -> None:
    image("x/a.png", seed=1)
    image("y/a.png", seed=2)
    pipe, apart = pipeline(batch_size=2), pipeline()
    with site() as url:
        attempt("a.png?x=1: results", count, apart, f"{url}/x/a.png?x=1")
        x, y = (np.asarray(r["pred"]) for r in apart.predict([f"{url}/x/a.png", f"{url}/y/a.png"]))
        both = list(pipe.predict([f"{url}/x/a.png", f"{url}/y/a.png"]))
        say(f"x/a.png and y/a.png, batch_size 1: the same labels: {np.array_equal(x, y)}")
        same = np.array_equal(both[0]["pred"], both[1]["pred"])
        say(f"x/a.png and y/a.png, batch_size 2: {len(both)} results, the same labels: {same}")
        say(f"input_path: {[Path(r['input_path']).name for r in both]}")


@case(7, "Files of one name from two folders")
def _same_names() -> None:
    photos = [image("x/a.png", seed=1), image("y/a.png", seed=2)]
    for result in pipeline().predict(photos):
        result.save_to_img("out")
        result.save_to_json("out")
    say(f"2 inputs, files written: {sorted(os.listdir('out'))}")


@case(8, "Label pictures")
def _label_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    Image.fromarray(noise).resize((1024, 1024)).save("a.jpg", quality=95)
    (result,) = pipeline().predict("a.jpg")
    result.save_to_img("out")
    classes = len(np.unique(result["pred"]))
    colours = len(Image.open("out/a_res.jpg").getcolors(1 << 24) or ())
    say(f"a.jpg: {classes} classes, a_res.jpg has {colours} colours")
    import cv2

    cv2.imwrite("b.ras", noise)
    (result,) = pipeline().predict("b.ras")
    attempt("b.ras: save_to_img", result.save_to_img, "out")


@case(9, "The JSON of a 2048x1024 image")
def _json() -> None:
    (result,) = pipeline().predict(image("big.png", (1024, 2048)))
    begin = time.perf_counter()
    result.save_to_json("out")
    seconds = time.perf_counter() - begin
    say(f"{Path('out/big_res.json').stat().st_size / 1e6:.1f} MB in {seconds:.1f} s")


@case(10, "A batch of images of different sizes")
def _mixed_sizes() -> None:
    photos = [image("a.png"), image("b.png", (64, 96))]
    attempt("batch_size 2: results", count, pipeline(batch_size=2), photos)


@case(11, "target_size=[-1, -1]")
def _minus_one() -> None:
    photo, pipe = image("a.png"), pipeline()
    for size in ([-1, -1], (-1, -1)):
        attempt(f"target_size={size}: results", count, pipe, photo, target_size=size)


@case(12, "What a result holds")
def _result() -> None:
    (result,) = pipeline().predict(image("a.png"))
    say(f"keys: {list(result)}")
    say(f"public names: {[n for n in dir(result) if not n.startswith('_') and n not in dir(dict)]}")


@case(13, "Serving")
def _serving() -> None:
    try:
        import fastapi  # noqa: F401
    except ImportError:
        say("not run: paddlex[serving] is not installed")
        return
    Path("p.yaml").write_text(yaml.safe_dump(config()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "paddlex", "--serve", "--pipeline", "p.yaml"]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with open("server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _send_requests(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)
    from paddlex.inference.serving.basic_serving import _app
    from paddlex.utils.flags import SERVING_SERIAL_PIPELINE_CALLS

    serial = f"{SERVING_SERIAL_PIPELINE_CALLS} ({_app.__name__})"
    say(f"calls are made one at a time, in one thread: {serial}")


def _send_requests(url: str) -> None:
    import requests

    for _ in range(120):
        try:
            requests.get(f"{url}/health", timeout=1)
            break
        except requests.ConnectionError:
            time.sleep(0.5)
    buffer = io.BytesIO()
    Image.open(image("a.png")).save(buffer, "PNG")
    with site() as files:
        bodies = {
            "a picture": base64.b64encode(buffer.getvalue()).decode(),
            "base64 that is none": "@@@",
            "base64 of text": base64.b64encode(b"hello").decode(),
            "a URL that answers 404": f"{files}/gone.png",
            "a URL on this machine's own network (127.0.0.1)": f"{files}/a.png",
            "a body of 128 MiB that is no picture": "A" * (128 << 20),
        }
        for what, value in bodies.items():
            answer = requests.post(
                f"{url}/semantic-segmentation", json={"image": value}, timeout=120
            )
            body = answer.json()
            fields = {key: body.get(key) for key in ("errorCode", "errorMsg")}
            say(f"{what} -> {answer.status_code} {json.dumps(fields)}")


@case(14, "A GPU that is not there")
def _no_gpu() -> None:
    import paddle

    say(f"GPUs that Paddle sees: {paddle.device.cuda.device_count()}")
    attempt("device='gpu:0': results", count, pipeline(device="gpu:0"), image("a.png"))


@case(15, "Downloads")
def _downloads() -> None:
    from paddlex.inference.utils import official_models
    from paddlex.utils import download

    checks = re.findall(r"sha\w+|md5|checksum", inspect.getsource(download))
    say(f"checks named in paddlex.utils.download: {checks}")
    hosts = [
        official_models.__dict__[n] for n in official_models.__dict__ if n.endswith("ModelHoster")
    ]
    known = [h.alias for h in hosts if h.alias and "PP-LiteSeg-T" in h.model_list]
    say(f"hosts that have PP-LiteSeg-T: {known}, of {[h.alias for h in hosts if h.alias]}")
    say(f"its address: {official_models._BosModelHoster.base_url}")


@case(16, "Backends of PP-LiteSeg on the CPU")
def _accelerated() -> None:
    import paddlex

    (file,) = Path(paddlex.__file__).parent.rglob("hpi_model_info_collection.json")
    table = json.loads(file.read_text("utf-8"))["cpu_x64"]["paddle311"]
    backends = "; ".join(f"{name}: {table[name]}" for name in ("PP-LiteSeg-T", "SegFormer-B0"))
    say(f"high-performance plugin, {backends}")
    try:
        say(f"paddle2onnx {version('paddle2onnx')}")
    except ImportError:
        say("conversion not run: paddle2onnx is not installed")
        return
    program = next(
        path for name in ("inference.json", "inference.pdmodel") if (path := MODEL / name).is_file()
    )
    code = "import sys; from paddle2onnx import export; export(*sys.argv[1:3], 'out.onnx', 17)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(program), str(MODEL / "inference.pdiparams")],
        capture_output=True,
        text=True,
        check=False,
    )
    written = Path("out.onnx").exists()
    say(f"paddle2onnx ends with status {done.returncode}; out.onnx written: {written}")
    for line in (done.stdout + done.stderr).splitlines():
        if "Paddle2ONNX]" in line or "abort signal" in line:
            say(line)


if __name__ == "__main__":
    main()
