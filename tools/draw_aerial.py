"""Draw a georeferenced aerial scene of any size, for the documentation and benchmarks/geo.py.

    python tools/draw_aerial.py scene.tif --side 20000 [--bands 4] [--collar 40] [--npy scene.npy]
    python tools/draw_aerial.py --model aerial.onnx
    segrt geo scene.tif -o labels.tif --model-dir aerial.onnx --slide 512,384
    python tools/draw_aerial.py scene.tif labels.tif --picture docs/aerial.jpg

The scene is that of draw_scenes.py, 800 x 800 pixels, mirrored at its edges to fill the size, with
noise of its own everywhere. A collar at the left, as wide as --collar, has no data. With --bands 4
it is a satellite's: blue, green, red and near infrared, 16 times the values of 8 bits, in 16 bits.
--npy also writes the pixels as the sliding window takes them, uint8 (H, W, 3), BGR.

--model writes a network for it: mean, deviation and products of the colours around a pixel, and a
linear layer fitted to the scene's own label map by ridge regression. --picture draws the scene
beside its label raster.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import rasterio
from affine import Affine
from draw_scenes import aerial
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.progress import track

from segrt.metadata import KEY, ModelMeta, Upsample

TILE = 800
PIXEL = 0.25  # metres
COLOURS = {
    "grassland": (168, 206, 112),
    "farmland": (240, 218, 132),
    "forest": (46, 110, 62),
    "bare soil": (190, 146, 108),
    "water": (70, 138, 200),
    "road": (112, 112, 122),
    "building": (214, 72, 60),
}


def rows(tile: NDArray[np.uint8], top: int, side: int) -> NDArray[np.uint8]:
    """Rows of the scene from `top`, at most as many as the tile has: uint8 (h, side, 3), BGR."""
    flipped = tile[::-1] if top // TILE % 2 else tile
    pair = np.concatenate([flipped, flipped[:, ::-1]], axis=1)
    strip = np.tile(pair, (1, -(-side // (2 * TILE)), 1))[: side - top, :side]
    noise = np.random.default_rng(top).integers(-6, 7, strip.shape, np.int16)
    return np.asarray(np.clip(strip + noise, 1, 255), np.uint8)  # 0 is for what has no data


def draw(file: Path, side: int, bands: int, collar: int, npy: Path | None) -> None:
    """Write the scene, row of tiles by row of tiles."""
    tile = aerial().image
    dtype = "uint8" if bands == 3 else "uint16"
    options = {"photometric": "rgb"} if bands == 3 else {}
    array = npy and np.lib.format.open_memmap(npy, "w+", np.uint8, (side, side, 3))
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=bands,
        dtype=dtype,
        nodata=0,
        crs="EPSG:32633",
        transform=Affine(PIXEL, 0, 412_000, 0, -PIXEL, 5_655_000),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        zlevel=1,
        bigtiff="if_safer",
        **options,
    ) as scene:
        if bands == 4:
            names = "blue", "green", "red", "near infrared"
            scene.descriptions = names
        for top in track(range(0, side, TILE), "drawing", transient=True):
            strip = rows(tile, top, side)
            if array is not None:
                array[top : top + len(strip)] = strip
            strip[:, :collar] = 0
            planes = strip.transpose(2, 0, 1)
            if bands == 4:
                infrared = np.where(planes[1:2], 255 - planes[1:2] // 2, 0)
                planes = np.concatenate([planes, infrared]).astype(np.uint16) * 16
            else:
                planes = planes[::-1]
            window = rasterio.windows.Window(0, top, side, len(strip))
            scene.write(planes, window=window)


def network(file: Path) -> None:
    """Write a network that is fitted to the scene."""
    drawn = aerial()
    around, step = 9, 4

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], **attributes)

    pool = {"kernel_shape": [around] * 2, "strides": [step] * 2, "pads": [around // 2] * 4}
    pool["count_include_pad"] = 0
    nodes = [
        node("AveragePool", ["x"], "mean", **pool),
        node("Mul", ["x", "x"], "xx"),
        node("AveragePool", ["xx"], "square", **pool),
        node("Mul", ["mean", "mean"], "mm"),
        node("Sub", ["square", "mm"], "difference"),
        node("Relu", ["difference"], "variance"),
        node("Sqrt", ["variance"], "deviation"),
        node("Gather", ["mean", "turn"], "turned", axis=1),
        node("Mul", ["mean", "turned"], "products"),
        node("Concat", ["mean", "mm", "deviation", "products"], "features", axis=1),
    ]
    constants = [numpy_helper.from_array(np.array([1, 2, 0]), "turn")]

    def save(last: list[onnx.NodeProto], weights: list[onnx.TensorProto], output: str) -> None:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(
            [*nodes, *last], "aerial", inputs, outputs, [*constants, *weights]
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        palette = tuple(COLOURS[name] for name in drawn.class_names)
        meta = ModelMeta(
            name="aerial",
            class_names=drawn.class_names,
            palette=palette,
            upsample=Upsample(stride=step),
        )
        helper.set_model_props(model, {KEY: meta.model_dump_json()})
        onnx.save_model(model, str(file))

    save([], [], "features")
    normalised = np.float32(drawn.image[None, :, :, ::-1].transpose(0, 3, 1, 2)) / 127.5 - 1
    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {"x": normalised})
    features = found[0].reshape(len(found[0]), -1).T.astype(np.float64)
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    labels = drawn.labels[step // 2 :: step, step // 2 :: step].ravel()
    share = np.bincount(labels) / labels.size
    weight = 1 / np.sqrt(share[labels])[:, None]
    wanted = np.eye(len(share))[labels]
    square = features.T @ (weight * features) + 1e-3 * np.eye(features.shape[1])
    fitted = np.linalg.solve(square, features.T @ (weight * wanted)).T.astype(np.float32)
    weights = [
        numpy_helper.from_array(fitted[:, :-1, None, None], "weight"),
        numpy_helper.from_array(fitted[:, -1], "bias"),
    ]
    save([node("Conv", ["features", "weight", "bias"], "logits")], weights, "logits")
    right = (features @ fitted.T.astype(np.float64)).argmax(axis=1) == labels
    print(f"{file}: {right.mean():.0%} of the scene's own pixels are right")


def picture(scene: Path, labels: Path, file: Path) -> None:
    """Draw a scene beside its label raster."""
    with rasterio.open(scene) as opened:
        photo = opened.read((1, 2, 3)).transpose(1, 2, 0)
    with rasterio.open(labels) as opened:
        table = np.array([opened.colormap(1)[i][:3] for i in range(256)], np.uint8)
        table[int(opened.nodata)] = 255
        drawn = table[opened.read(1)]
    gap = np.full((len(photo), 16, 3), 255, np.uint8)
    both = np.concatenate([np.where(photo.any(2)[..., None], photo, 255), gap, drawn], axis=1)
    height, width = both.shape[:2]
    size = 1200, round(1200 * height / width)
    Image.fromarray(cv2.resize(both, size, interpolation=cv2.INTER_AREA)).save(file, quality=88)


def main() -> None:
    """Draw what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scene", type=Path, nargs="?")
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=2000)
    parser.add_argument("--bands", type=int, choices=(3, 4), default=3)
    parser.add_argument("--collar", type=int, default=0)
    parser.add_argument("--npy", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.model:
        network(arguments.model)
    elif arguments.picture:
        picture(arguments.scene, arguments.labels, arguments.picture)
    else:
        draw(arguments.scene, arguments.side, arguments.bands, arguments.collar, arguments.npy)


if __name__ == "__main__":
    main()
