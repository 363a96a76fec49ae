"""The few things that the passes need from an ONNX graph and that `onnx` itself does not offer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that makes each tensor, by the tensor's name."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor, by the tensor's name."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values; text as str."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def constant(graph: GraphProto, name: str) -> npt.NDArray[Any] | None:
    """The value of an initializer or of a Constant node; None where `name` is computed."""
    for initializer in graph.initializer:
        if initializer.name == name:
            return np.asarray(numpy_helper.to_array(initializer))
    node = producers(graph).get(name)
    if node is not None and node.op_type == "Constant":
        return np.asarray(numpy_helper.to_array(attributes(node)["value"]))
    return None


class Index:
    """What a pass looks up in one graph again and again. It does not follow changes: make a new one after a rewrite."""

    def __init__(self, graph: GraphProto) -> None:
        self.producers = producers(graph)
        self.consumers = consumers(graph)
        self._constants = {initializer.name: initializer for initializer in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and "value" in (values := attributes(node)):
                self._constants[node.output[0]] = values["value"]

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of an initializer or of a Constant node, those stored as float16 too; None for what is computed."""
        stored = self.behind(name, "Cast", to=TensorProto.FLOAT)
        tensor = self._constants.get(stored or name)
        value = None if tensor is None else np.asarray(numpy_helper.to_array(tensor))
        return value.astype(np.float32) if stored and value is not None else value

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """The node that makes `name`, if it is an `op_type`."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == op_type else None

    def behind(self, name: str, op_type: str, **expected: Any) -> str:
        """The first input of the `op_type` that makes `name`; empty if another operator makes it, or other attributes
        than `expected` are set."""
        node = self.made_by(name, op_type)
        values = attributes(node) if node is not None else {}
        if node is None or any(values.get(key) != value for key, value in expected.items()):
            return ""
        return str(node.input[0])


class Builder:
    """Collects new nodes under one name prefix, so that inserted tensors can't clash with the graph's own."""

    def __init__(self, graph: GraphProto, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[NodeProto] = []

    def const(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add an initializer; returns its name."""
        name = f"{self.prefix}.const{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        output = output or f"{self.prefix}.{op_type}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [output], name=output, **attributes)
        )
        return output

    def replace(self, node: NodeProto) -> None:
        """Put the collected nodes where `node` stands, and remove it."""
        at = next(i for i, n in enumerate(self.graph.node) if n is node or n == node)
        rest = list(self.graph.node)[at + 1 :]
        del self.graph.node[at:]
        self.graph.node.extend([*self.nodes, *rest])


def prune(graph: GraphProto) -> None:
    """Remove nodes and initializers that no graph output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [i for i in graph.initializer if i.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
