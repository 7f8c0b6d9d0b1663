"""PyTorch: NCHW and channels_last, and convolutions also with both tensors in oneDNN's own layout.

Backward calls the nodes of PyTorch's graph themselves, without its engine: no thread is handed over to, and only the
gradients that are wanted are computed. Updates call what torch.optim calls with fused=True.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn.bench import arrays, networks
from pycnn.bench.cases import BACKWARD_WEIGHTS, FORWARD, STEP, Case
from pycnn.bench.engines import Work


class _Torch:
    def __init__(self, threads: int) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_interop_threads(1)
        self.use_threads(threads)

    def describe(self) -> dict[str, str]:
        torch = self._torch
        return {"version": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability().lower()}

    def use_threads(self, threads: int) -> None:
        if self._torch.get_num_threads() != threads:
            self._torch.set_num_threads(threads)

    def prepare(self, case: Case) -> dict[str, Work]:
        if case.op == "network":
            return self._networks(case)
        if case.direction == STEP:
            return {"fused": self._update(case)}
        if len(case.shape) != 4:
            return {"": self._operation(case, None)}
        variants = {
            "nchw": self._operation(case, self._torch.contiguous_format),
            "channels_last": self._operation(case, self._torch.channels_last),
        }
        if case.op == "conv" and case.direction == FORWARD:
            variants["prepacked"] = self._prepacked(case)
        return variants

    def _tensor(self, shape: tuple[int, ...], seed: int, layout: Any, scale: float = 1.0) -> Any:
        tensor = self._torch.from_numpy(arrays.normal(shape, seed, scale))
        # A clone lies in memory that PyTorch allocated.
        return tensor.clone() if layout is None or tensor.ndim != 4 else tensor.clone(memory_format=layout)

    def _weights(self, case: Case, layout: Any) -> Any:
        o = case.options
        ic = case.shape[1] // o["groups"]
        shape = (o["oc"], ic, o["kernel"], o["kernel"])
        return self._tensor(shape, 1, layout, 1 / math.sqrt(ic * o["kernel"] ** 2))

    def _forward(self, case: Case, layout: Any) -> tuple[Callable[[Any], Any], list[Any]]:
        """The operation as a function of its source, and its parameters."""
        torch = self._torch
        functional = torch.nn.functional
        o = case.options
        if case.op == "conv":
            weights = self._weights(case, layout)
            return lambda x: torch.conv2d(x, weights, None, o["stride"], o["padding"], 1, o["groups"]), [weights]
        if case.op == "activation":
            return getattr(functional, o["kind"]), []
        if case.op == "softmax":
            return lambda x: torch.softmax(x, 1), []
        if case.op == "max_pool":
            return lambda x: torch.max_pool2d(x, o["kernel"], o["stride"], o["padding"]), []
        if case.op == "global_avg_pool":
            return lambda x: functional.adaptive_avg_pool2d(x, 1), []
        if case.op == "instance_norm":
            return lambda x: functional.instance_norm(x), []
        c = case.shape[-1 if case.op == "layer_norm" else 1]
        weights, biases = self._tensor((c,), 1, None), self._tensor((c,), 2, None)
        if case.op == "layer_norm":
            return lambda x: functional.layer_norm(x, (c,), weights, biases), [weights, biases]
        if case.op == "group_norm":
            return lambda x: functional.group_norm(x, o["groups"], weights, biases), [weights, biases]
        mean, var = torch.zeros(c), torch.ones(c)

        def batch_norm(x: Any) -> Any:
            return functional.batch_norm(x, mean, var, weights, biases, True)

        if case.op == "batch_norm":
            return batch_norm, [weights, biases]
        return lambda x: torch.relu_(batch_norm(x)), [weights, biases]

    def _operation(self, case: Case, layout: Any) -> Work:
        torch = self._torch
        forward, parameters = self._forward(case, layout)
        x = self._tensor(case.shape, 0, layout)
        if case.direction == FORWARD:
            return Work(self._without_gradients(lambda: forward(x)), lambda y: y.numpy())
        only_weights = case.direction == BACKWARD_WEIGHTS
        x.requires_grad_(not only_weights)
        for parameter in parameters:
            parameter.requires_grad_(only_weights or case.op != "conv")
        y = forward(x)
        diff_dst = self._tensor(tuple(y.shape), 3, layout)
        nodes = _chain(y)

        def backward() -> Any:
            gradients: Any = (diff_dst,)
            with torch.no_grad():
                for node, absent in nodes:
                    gradients = node(gradients[0], *absent)
                    if not isinstance(gradients, tuple):
                        gradients = (gradients,)
            return gradients

        return Work(backward, lambda gradients: gradients[1 if only_weights else 0].numpy())

    def _prepacked(self, case: Case) -> Work:
        torch = self._torch
        o = case.options
        stride, padding, dilation = [o["stride"]] * 2, [o["padding"]] * 2, [1, 1]
        x = self._tensor(case.shape, 0, None).to_mkldnn()
        weights = torch._C._nn.mkldnn_reorder_conv2d_weight(
            self._weights(case, None).to_mkldnn(), padding, stride, dilation, o["groups"], list(case.shape)
        )
        return Work(
            self._without_gradients(
                lambda: torch.mkldnn_convolution(x, weights, None, padding, stride, dilation, o["groups"])
            ),
            lambda y: y.to_dense().numpy(),
        )

    def _networks(self, case: Case) -> dict[str, Work]:
        torch = self._torch
        layouts = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
        if case.direction == STEP:
            return {name: self._training(case, layout) for name, layout in layouts.items()}
        variants = {}
        for name, layout in layouts.items():
            network = networks.load_into_torch(case.options["network"], torch).eval().to(memory_format=layout)
            x = self._tensor(case.shape, 0, layout)
            variants[name] = self._inference(network, x)
            with torch.no_grad():
                frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, x)))
            variants[f"{name} frozen"] = self._inference(frozen, x)
        return variants

    def _inference(self, network: Any, x: Any) -> Work:
        return Work(self._without_gradients(lambda: network(x)), lambda y: y.numpy())

    def _training(self, case: Case, layout: Any) -> Work:
        torch = self._torch
        network = networks.load_into_torch(case.options["network"], torch).train().to(memory_format=layout)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
        x = self._tensor(case.shape, 0, layout)
        targets = torch.from_numpy(arrays.targets(case.shape[0]))

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(network(x), targets)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return Work(step, lambda loss: np.array([loss]))

    def _without_gradients(self, call: Callable[[], Any]) -> Callable[[], Any]:
        torch = self._torch

        def guarded() -> Any:
            with torch.inference_mode():
                return call()

        return guarded

    def _update(self, case: Case) -> Work:
        torch = self._torch
        weights, gradient = self._tensor(case.shape, 0, None), self._tensor(case.shape, 1, None)
        before = weights.clone()
        states = [torch.zeros(case.shape) for _ in range(2)]
        steps = torch.tensor(10.0)

        def sgd() -> None:
            torch._fused_sgd_(
                [weights],
                [gradient],
                [states[0]],
                weight_decay=1e-4,
                momentum=0.9,
                lr=1e-3,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )

        def adam() -> None:
            torch._fused_adam_(
                [weights],
                [gradient],
                [states[0]],
                [states[1]],
                [],
                [steps],
                lr=1e-3,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

        return Work(sgd if case.op == "sgd" else adam, lambda _: (before - weights).numpy())


def _chain(y: Any) -> list[tuple[Any, tuple[None, ...]]]:
    """The nodes of backward from y to the source, in the order in which they run, each with the gradients that are
    absent because nobody uses the outputs beyond the first."""
    nodes = []
    node = y.grad_fn
    while node is not None and not node.name().endswith("AccumulateGrad"):
        nodes.append((node, (None,) * (len(node._input_metadata) - 1)))
        node = node.next_functions[0][0]
    return nodes


def create(threads: int) -> _Torch:
    return _Torch(threads)
