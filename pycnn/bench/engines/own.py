"""pycnn: graphs of one operation (two for BatchNorm+ReLU), run by the engine without the layers around it.

Forward passes have constant weights, packed once, as the peers have them. Networks are compiled, or trained by a
Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import Trainer, __version__, _core, compile, cpu_info, losses, optim, set_num_threads
from pycnn.bench import arrays, networks
from pycnn.bench.cases import BACKWARD_WEIGHTS, FORWARD, STEP, Case
from pycnn.bench.engines import Work
from pycnn.parameter import Array

# Parameters and states: (value, data, gradient or None).
Bound = list[tuple[int, Array, Array | None]]


def _pair(number: int) -> tuple[int, int]:
    return number, number


class _Builder:
    """A graph in the making, and the memory of what it reads besides its input."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.training = case.direction != FORWARD
        self.graph = _core.Graph("float32")
        self.bound: Bound = []
        self.src = self.graph.input(case.shape)
        if self.training and case.direction != BACKWARD_WEIGHTS:
            self.graph.require_gradient(self.src)

    def parameter(self, data: Array, trained: bool) -> int:
        value = self.graph.parameter(data.shape)
        if trained:
            self.graph.require_gradient(value)
        self.bound.append((value, data, arrays.empty(data.shape) if trained else None))
        return value

    def state(self, data: Array) -> int:
        value = self.graph.state(data.shape, str(data.dtype))
        self.bound.append((value, data, None))
        return value

    def affine(self, channels: int) -> tuple[int, int]:
        """Weights and biases of a normalization."""
        return (
            self.parameter(arrays.normal((channels,), 1), self.training),
            self.parameter(arrays.normal((channels,), 2), self.training),
        )


def _conv(b: _Builder) -> int:
    o = b.case.options
    ic = b.case.shape[1] // o["groups"]
    fan_in = ic * o["kernel"] ** 2
    weights = b.parameter(
        arrays.normal((o["oc"], ic, o["kernel"], o["kernel"]), 1, 1 / math.sqrt(fan_in)),
        b.case.direction == BACKWARD_WEIGHTS,
    )
    padding = (o["padding"],) * 4
    return b.graph.conv2d(b.src, weights, None, _pair(o["stride"]), padding, (1, 1), o["groups"])


def _batch_norm(b: _Builder) -> int:
    c = b.case.shape[1]
    weights, biases = b.affine(c)
    states = [b.state(arrays.full((c,), 0)), b.state(arrays.full((c,), 1)), b.state(np.zeros((), np.int64))]
    return b.graph.norm("batch_norm", [b.src, weights, biases, *states], 1e-5, training=True)


def _batch_norm_relu(b: _Builder) -> int:
    return b.graph.activation("relu", _batch_norm(b))


def _group_norm(b: _Builder) -> int:
    weights, biases = b.affine(b.case.shape[1])
    return b.graph.norm("group_norm", [b.src, weights, biases], 1e-5, groups=b.case.options["groups"])


def _instance_norm(b: _Builder) -> int:
    return b.graph.norm("instance_norm", [b.src], 1e-5)


def _layer_norm(b: _Builder) -> int:
    weights, biases = b.affine(b.case.shape[-1])
    return b.graph.norm("layer_norm", [b.src, weights, biases], 1e-5, axes=1)


_ACTIVATION_ARGUMENTS = {"leaky_relu": (0.01,), "elu": (1.0,), "softplus": (1.0, 20.0)}


def _activation(b: _Builder) -> int:
    kind = b.case.options["kind"]
    return b.graph.activation(kind, b.src, *_ACTIVATION_ARGUMENTS.get(kind, ()))


def _softmax(b: _Builder) -> int:
    return b.graph.softmax(b.src, 1, False)


def _max_pool(b: _Builder) -> int:
    o = b.case.options
    return b.graph.max_pool2d(b.src, _pair(o["kernel"]), _pair(o["stride"]), _pair(o["padding"]), (1, 1), False)


def _global_avg_pool(b: _Builder) -> int:
    return b.graph.resize("adaptive_avg_pool2d", b.src, (1, 1))


_OPERATIONS: dict[str, Callable[[_Builder], int]] = {
    "conv": _conv,
    "batch_norm": _batch_norm,
    "batch_norm_relu": _batch_norm_relu,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "activation": _activation,
    "softmax": _softmax,
    "max_pool": _max_pool,
    "global_avg_pool": _global_avg_pool,
}
# Forward, too, they leave behind what backward needs, as in training.
_TRAINING = ("batch_norm", "batch_norm_relu")


def _graph_work(case: Case) -> Work:
    builder = _Builder(case)
    graph = builder.graph
    dst = _OPERATIONS[case.op](builder)
    graph.output(dst)
    keep = case.direction != FORWARD or case.op in _TRAINING
    if case.direction == FORWARD and keep:
        graph.require_gradient(builder.src)
    inputs = [("x", builder.src, "float32")]
    if not keep:
        constants = [(value, data) for value, data, _ in builder.bound]
        plan = _core.FrozenPlan.freeze(graph, constants)
        x = arrays.channels_last(arrays.normal(case.shape, 0))
        return Work(lambda: plan.run((x,)), lambda results: results[0])
    runner = _core.Runner(graph, inputs, [dst], backward=keep, repeat=True, copy=False)
    for value, data, diff in builder.bound:
        runner.bind(value, data, diff)
    src = (arrays.channels_last(arrays.normal(case.shape, 0)),)
    if case.direction == FORWARD:
        return Work(lambda: runner.forward(src), lambda results: results[0])
    runner.forward(src)
    diff_dst = (arrays.channels_last(arrays.normal(graph.shape(dst), 3)),)
    if case.direction == BACKWARD_WEIGHTS:
        [(_, _, diff_weights)] = builder.bound
        return Work(lambda: runner.backward(diff_dst, False), lambda _: diff_weights)
    return Work(lambda: runner.backward(diff_dst), lambda results: results[0])


def _network_work(case: Case) -> Work:
    model = networks.create(case.options["network"])
    x = arrays.channels_last(arrays.normal(case.shape, 0))
    if case.direction == FORWARD:
        plan = compile(model, case.shape)
        return Work(lambda: plan(x), lambda y: y)
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    trainer = Trainer(model, losses.CrossEntropyLoss(), optimizer)
    targets = arrays.targets(case.shape[0])
    return Work(lambda: trainer.step(x, targets), lambda loss: np.array([loss]))


def _update_work(case: Case) -> Work:
    weights, gradient = arrays.normal(case.shape, 0), arrays.normal(case.shape, 1)
    before = weights.copy()
    segments = _core.Segments(np.dtype(np.float32), [(weights, gradient, 0)])
    if case.op == "sgd":
        state: tuple[Array, ...] = (arrays.empty(case.shape),)
        options: dict[str, Any] = {"lr": 1e-3, "weight_decay": 1e-4, "momentum": 0.9}
    else:
        state = (arrays.empty(case.shape), arrays.empty(case.shape))
        options = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

    def call() -> None:
        segments.update(case.op, state, 10, **options)

    return Work(call, lambda _: before - weights)


class _Own:
    def describe(self) -> dict[str, str]:
        info = cpu_info()
        return {"version": __version__, "isa": info["isa"], "threads by": info["thread_backend"]}

    def use_threads(self, threads: int) -> None:
        set_num_threads(threads)

    def prepare(self, case: Case) -> dict[str, Work]:
        if case.op == "network":
            return {"": _network_work(case)}
        return {"": _update_work(case) if case.direction == STEP else _graph_work(case)}


def create(threads: int) -> _Own:
    return _Own()
