"""The graph operations that the passes need and that `onnx` does not provide."""

# Why not onnx-ir: with version 1.1 (tried on image_pool and its helpers) the passes are as long as
# now, shape inference (count.py) still needs protobuf messages, and loading and saving a model
# alone changes its bytes.

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that computes each tensor, by the tensor's name."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor, by the tensor's name."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values; strings as str."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


class Index:
    """Lookup tables of a graph. They do not follow changes: build a new index after a rewrite.

    Example:
        >>> index = Index(model.graph)
        >>> index.made_by("logits", "Conv")
    """

    def __init__(self, graph: GraphProto) -> None:
        self.producers = producers(graph)
        self.consumers = consumers(graph)
        self._constants = {initializer.name: initializer for initializer in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and "value" in (values := attributes(node)):
                self._constants[node.output[0]] = values["value"]

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of an initializer or Constant node, in FP32 if it is stored as FP16.

        Returns:
            array: the value; None for a computed tensor.
        """
        stored = self.behind(name, "Cast", to=TensorProto.FLOAT)
        tensor = self._constants.get(stored or name)
        value = None if tensor is None else np.asarray(numpy_helper.to_array(tensor))
        return value.astype(np.float32) if stored and value is not None else value

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """The node that computes `name`, if it is an `op_type`."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == op_type else None

    def linear(self, name: str) -> Linear | None:
        """The linear layer that computes `name`; None if there is none.

        Paddle's converter writes product + bias, that of torch bias + product.
        """
        add, bias = self.made_by(name, "Add"), None
        if add is not None:
            first, second = add.input
            if self.made_by(first, "MatMul") is None:
                first, second = second, first
            name, bias = first, self.constant(second)
            if bias is None or bias.ndim != 1:
                return None
        product = self.made_by(name, "MatMul")
        weight = self.constant(product.input[1]) if product is not None else None
        if product is None or weight is None or weight.ndim != 2:
            return None
        return Linear(product.input[0], name, weight, bias)

    def behind(self, name: str, op_type: str, **expected: Any) -> str:
        """The first input of the `op_type` that computes `name`.

        Returns:
            str: empty if another operator computes `name`, or an attribute differs from `expected`.
        """
        node = self.made_by(name, op_type)
        values = attributes(node) if node is not None else {}
        if node is None or any(values.get(key) != value for key, value in expected.items()):
            return ""
        return str(node.input[0])


class Linear(NamedTuple):
    """A linear layer X W + b on tokens.

    Attributes:
        tokens: name of X.
        product: name of X W.
        weight: W, (inputs, outputs).
        bias: b, (outputs,), or None.
    """

    tokens: str
    product: str
    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any] | None


class Builder:
    """Collects new nodes under a common name prefix, which keeps their names unique.

    Example:
        >>> build = Builder(model.graph, "scale.0")
        >>> build.add("Mul", node.input[0], build.const(2, "float32"), output=node.output[0])
        >>> build.replace(node)
    """

    def __init__(self, graph: GraphProto, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[NodeProto] = []

    def const(self, value: npt.ArrayLike, dtype: npt.DTypeLike = "int64") -> str:
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

    def slice(self, x: str, start: int, stop: int) -> str:
        """Add x[start:stop] along the first axis; returns the output's name."""
        return self.add("Slice", x, self.const([start]), self.const([stop]))

    def concat(self, names: list[str], axis: int) -> str:
        """Concatenate tensors; returns the output's name, or the tensor's own if there is one."""
        return names[0] if len(names) == 1 else self.add("Concat", *names, axis=axis)

    def replace(self, node: NodeProto) -> None:
        """Insert the collected nodes at the position of `node`, and remove it."""
        at = next(i for i, n in enumerate(self.graph.node) if n is node or n == node)
        rest = list(self.graph.node)[at + 1 :]
        del self.graph.node[at:]
        self.graph.node.extend([*self.nodes, *rest])


def prune(graph: GraphProto) -> None:
    """Remove nodes and initializers that no graph output depends on."""
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
