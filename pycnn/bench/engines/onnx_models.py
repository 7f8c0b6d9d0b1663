"""ONNX models of one operation, for the libraries that take those."""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from typing import Any

from pycnn.bench import arrays, networks
from pycnn.bench.cases import FORWARD, Case
from pycnn.onnx import save
from pycnn.parameter import Array

_OPSET = 21
_IR_VERSION = 10  # of the same age as the opset: newer ones are refused by runtimes a year old

_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "hardswish": ("HardSwish", {}),
    "hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "gelu": ("Gelu", {}),
    "elu": ("Elu", {"alpha": 1.0}),
    "softplus": ("Softplus", {}),
    "mish": ("Mish", {}),
}


def build(case: Case) -> bytes | None:
    """A model from `x` to `y`, or None: backward passes and training are not to be had."""
    if case.direction != FORWARD:
        return None
    if case.op == "network":
        return _network(case)
    onnx: Any = importlib.import_module("onnx")
    helper = onnx.helper
    constants: dict[str, Array] = {}

    def constant(name: str, array: Array) -> str:
        constants[name] = array
        return name

    nodes = _nodes(case, helper.make_node, constant)
    if nodes is None:
        return None
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        case.op,
        [helper.make_tensor_value_info("x", float32, case.shape)],
        [helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    text: bytes = model.SerializeToString()
    return text


def _network(case: Case) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        save(networks.create(case.options["network"]).eval(), path, case.shape)
        return path.read_bytes()


def _nodes(case: Case, node: Any, constant: Any) -> list[Any] | None:
    o = case.options
    if case.op == "conv":
        ic = case.shape[1] // o["groups"]
        shape = (o["oc"], ic, o["kernel"], o["kernel"])
        weights = constant("weights", arrays.normal(shape, 1, 1 / math.sqrt(ic * o["kernel"] ** 2)))
        attributes = {"strides": [o["stride"]] * 2, "pads": [o["padding"]] * 4, "group": o["groups"]}
        return [node("Conv", ["x", weights], ["y"], **attributes)]
    if case.op == "activation" and o["kind"] == "relu6":
        low, high = constant("low", arrays.full((), 0)), constant("high", arrays.full((), 6))
        return [node("Clip", ["x", low, high], ["y"])]
    if case.op == "activation" and o["kind"] == "silu":
        return [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    if case.op == "activation":
        name, attributes = _ACTIVATIONS[o["kind"]]
        return [node(name, ["x"], ["y"], **attributes)]
    if case.op == "softmax":
        return [node("Softmax", ["x"], ["y"], axis=1)]
    if case.op == "max_pool":
        attributes = {"kernel_shape": [o["kernel"]] * 2, "strides": [o["stride"]] * 2, "pads": [o["padding"]] * 4}
        return [node("MaxPool", ["x"], ["y"], **attributes)]
    if case.op == "global_avg_pool":
        return [node("GlobalAveragePool", ["x"], ["y"])]
    c = case.shape[-1 if case.op == "layer_norm" else 1]
    if case.op == "instance_norm":
        ones, zeros = constant("weights", arrays.full((c,), 1)), constant("biases", arrays.full((c,), 0))
        return [node("InstanceNormalization", ["x", ones, zeros], ["y"], epsilon=1e-5)]
    if case.op in ("layer_norm", "group_norm"):
        weights, biases = constant("weights", arrays.normal((c,), 1)), constant("biases", arrays.normal((c,), 2))
        if case.op == "layer_norm":
            return [node("LayerNormalization", ["x", weights, biases], ["y"], axis=-1, epsilon=1e-5)]
        attributes = {"num_groups": o["groups"], "epsilon": 1e-5}
        return [node("GroupNormalization", ["x", weights, biases], ["y"], **attributes)]
    return None
