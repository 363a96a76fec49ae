"""How much memory a network needs at an input size, from the sizes of all its tensors.

The network runs once at a few small sizes with every tensor as an output. From when each tensor is
made to when it is last read, the bytes alive at each node are known; they are polynomials in the
number of pixels (linear for convolutions, quadratic for attention), so the peak at any size is too.
Sides are rounded up to the strides of the network first: a side of one pixel does not shrink in
strided convolutions, so an image of 15,999,999 x 1 pixels needs as much as one of 15,999,999 x 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segrt import external_data, second_graph
from segrt.backends import catalog
from segrt.network import Input, image_input, prepare
from segrt.protobuf import field, fields

STRIDE = 32
"""Largest stride of the known networks: both sides are rounded up to a multiple of it."""

SIDES = (128, 192, 256)
"""Sides of the square inputs that are measured; multiples of every network's strides."""

CEILING = 16 << 10
"""Bytes per pixel assumed for networks that can't be measured; the known ones need 0.05 to 3 KiB
up to 2 megapixels."""

SAFETY, WORKSPACE = 1.15, 48 << 20
"""Allowance for what the tensors don't show, fragmentation and the workspace of the kernels, as
measured: a factor, and bytes."""

_LARGE = 64 << 20  # bytes at the first side

# Field numbers, from onnx.proto.
_GRAPH = 7  # of ModelProto
_NODE, _OUTPUT = 1, 12  # of GraphProto
_NODE_INPUT, _NODE_OUTPUT = 1, 2  # of NodeProto
_NAME = 1  # of ValueInfoProto


@dataclass(frozen=True)
class Footprint:
    """The memory a network needs while it runs.

    Example:
        >>> footprint = measure(Path("model.onnx"))
        >>> footprint.bytes_for((1, 3, 512, 1024)) / 2**20

    Attributes:
        terms: float64 (K, 3): the bytes alive at the nodes that can be the peak, as coefficients of
            1, P and P**2, for P input pixels.
    """

    terms: tuple[tuple[float, float, float], ...]

    def bytes_for(self, shape: tuple[int, ...]) -> int:
        """Memory for a batch of shape (N, C, H, W), in bytes, without the weights."""
        count, _, height, width = shape
        pixels = math.ceil(height / STRIDE) * math.ceil(width / STRIDE) * STRIDE**2
        peak = max(a + b * pixels + c * pixels**2 for a, b, c in self.terms)
        return int(count * SAFETY * peak) + WORKSPACE


UNKNOWN = Footprint(((0.0, float(CEILING), 0.0),))
"""For networks that can't be measured."""


def measure(file: Path) -> Footprint:
    """Measure a model; takes about as long as loading it.

    Returns:
        Footprint: `UNKNOWN` if the model does not run at the sizes of `SIDES`, or not with all
            its tensors as outputs.
    """
    try:
        data = second_graph.read(file) or file.read_bytes()
        if any(external_data.locations(memoryview(data))):
            return UNKNOWN  # its tensors are in other files, which bytes do not lead to
        nodes, graph_outputs = _nodes(memoryview(data))
        names = list(dict.fromkeys(name for _, outputs in nodes for name in outputs))
        session = _session(data, [name for name in names if name not in graph_outputs])
        image = image_input(session.get_inputs(), file)
        _, height, width = image.dims
        tried = dict.fromkeys((height or side, width or side) for side in SIDES)
        alive = []
        for size in tried:
            alive.append(_alive(session, nodes, graph_outputs, names, image, size))
            if len(tried) == 1:
                return Footprint(((float(alive[0].max()), 0.0, 0.0),))
            if (peak := alive[0].max()) > _LARGE:  # the other sides could take 16 times as much
                return Footprint(((0.0, 0.0, float(peak) / math.prod(size) ** 2),))
    except Exception:  # onnxruntime has its own class per status code
        return UNKNOWN
    powers = np.vander(
        np.array([math.prod(size) for size in tried], np.float64), 3, increasing=True
    )
    terms = np.linalg.solve(powers, np.array(alive)).T  # (nodes, 3)
    sizes = np.geomspace(STRIDE**2, 1e11, 200)
    peaks = (terms @ np.vander(sizes, 3, increasing=True).T).argmax(axis=0)
    chosen = terms[np.unique(peaks)]
    return Footprint(tuple((float(a), float(b), float(c)) for a, b, c in np.maximum(chosen, 0)))


def _nodes(model: memoryview) -> tuple[list[tuple[list[str], list[str]]], set[str]]:
    """Names of the inputs and outputs of each node, and of the outputs of the graph."""
    nodes, outputs = [], set()
    for number, _, graph in fields(model):
        if number != _GRAPH:
            continue
        for part, _, value in fields(graph):
            if part == _NODE:
                names: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: []}
                for key, _, text in fields(value):
                    if key in names and len(text):
                        names[key].append(bytes(text).decode())
                nodes.append((names[_NODE_INPUT], names[_NODE_OUTPUT]))
            elif part == _OUTPUT:
                outputs |= {bytes(text).decode() for key, _, text in fields(value) if key == _NAME}
    return nodes, outputs


def _session(model: bytes, names: list[str]) -> Any:
    """A session with these tensors as further outputs. Concatenated messages are merged."""
    ort = catalog.onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    outputs = b"".join(field(_OUTPUT, field(_NAME, name.encode())) for name in names)
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(model + field(_GRAPH, outputs), options, providers=providers)


def _alive(
    session: Any,
    nodes: list[tuple[list[str], list[str]]],
    graph_outputs: set[str],
    names: list[str],
    image: Input,
    size: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """The bytes of the tensors that are alive while each node runs, for one image."""
    count = image.dims[0] or 1
    batch = prepare(np.zeros((count, image.channels, *size), np.float32), image)
    node = image.name
    sizes = dict(zip(names, (a.nbytes for a in session.run(names, {node: batch})), strict=True))
    sizes[node] = batch.nbytes
    last = {name: index for index, (inputs, _) in enumerate(nodes) for name in inputs}
    last |= dict.fromkeys(graph_outputs, len(nodes) - 1)
    change = np.zeros(len(nodes) + 1)
    change[0] += batch.nbytes
    for index, (_, outputs) in enumerate(nodes):
        change[index] += sum(sizes[name] for name in outputs)
    for name, nbytes in sizes.items():
        made = next((i for i, (_, outputs) in enumerate(nodes) if name in outputs), 0)
        change[last.get(name, made) + 1] -= nbytes
    return np.cumsum(change[:-1]) / count
