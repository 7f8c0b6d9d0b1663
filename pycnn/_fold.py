"""Batch normalization folded into the layers before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pycnn._core import Graph
from pycnn._modes import evaluation
from pycnn._summary import Shape, batched
from pycnn.nn import BatchNorm2d, Conv2d, ConvTranspose2d, Identity, Linear, Module
from pycnn.parameter import Array, Parameter
from pycnn.tracing import Tracer, flatten_results

_SIDES = (32, 28, 224, *range(1, 257))  # of images, to be tried on a network that has not said what it takes
_OUTSIDE = -1  # the user of an output


def fold_batchnorm(model: Module, input_shape: Sequence[Any] | None = None) -> Module:
    """A copy of the network without batch normalization that gives, in evaluation mode, the same outputs.

    With running statistics w (x - mean) / sqrt(var + eps) + b is one factor and one summand a channel. Where x comes
    from a convolution, a transposed convolution or a linear layer that is called once and whose result nothing else
    reads, they go into its weights and bias, and `Identity` takes the place of the normalization; anywhere else a
    depthwise convolution of 1 x 1 does. Jacob et al., 2018, section 3.2.

    What follows what is read off a trace, and is taken to be the same for inputs of any size.

    Args:
        model: the network; it stays as it is.
        input_shape: of inputs that the network takes, as in `summary`. By default the shape it was last called with, or
            else one that is found by trying; if none is found, no normalization goes into the layer before it.

    Raises:
        ValueError: a normalization without running statistics, which no weights can stand for.
        TypeError, ValueError: an argument of another kind, or an input_shape that does not fit the network.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    folded = copy.deepcopy(model)
    norms = [(name, module) for name, module in folded.named_modules() if _runs(module, BatchNorm2d)]
    for name, norm in norms:
        if norm.running_mean is None:
            raise ValueError(f"model: {name or 'it'} has track_running_stats=False, expected running statistics")
    before = _layers_before(folded, model, input_shape) if norms else {}
    places: dict[int, Module] = {}
    for _, norm in norms:
        scale, shift = _factor_and_summand(norm)
        layer = before.get(id(norm))
        if layer is None:
            places[id(norm)] = _affine(norm, scale, shift)
        else:
            _fold_into(layer, scale, shift)
            places[id(norm)] = Identity().train(norm.training)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if id(child) in places:
                module.add_module(name, places[id(child)])
    return places.get(id(folded), folded)


def _runs(module: Module, *kinds: type[Module]) -> bool:
    """Is of one of these kinds, and computes what that kind computes."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


# ---- who comes before whom -------------------------------------------------------------------------------------------


def _layers_before(folded: Module, model: Module, input_shape: Sequence[Any] | None) -> dict[int, Module]:
    """By id of a normalization: the layer that it can go into."""
    with evaluation(folded):
        if input_shape is not None:
            return _read(folded, *_trace(folded, batched(input_shape)))
        for shapes in _likely_shapes(model):
            try:
                tracer, results = _trace(folded, shapes)
            except Exception:  # whatever forward says to a size that it does not take
                continue
            return _read(folded, tracer, results)
    return {}


def _trace(model: Module, shapes: tuple[Shape, ...]) -> tuple[Tracer, Any]:
    return model.trace(shapes, str(model.dtype))


def _likely_shapes(model: Module) -> Iterator[tuple[Shape, ...]]:
    for (shapes, _), _ in reversed(model._traces):
        yield tuple(shapes)
    for module in model.modules():
        if isinstance(module, Linear):
            yield ((1, module.in_features),)
            return
        if isinstance(module, (Conv2d, ConvTranspose2d, BatchNorm2d)):
            channels = module.num_features if isinstance(module, BatchNorm2d) else module.in_channels
            for side in _SIDES:
                yield ((1, channels, side, side),)
            return


def _read(model: Module, tracer: Tracer, results: Any) -> dict[int, Module]:
    graph = tracer.graph
    users: dict[int, list[int]] = {}  # by value: the results made of it
    for made, sources in graph.sources.items():
        for source in sources:
            if source is not None:
                users.setdefault(source, []).append(made)
    for output in flatten_results(results)[0]:
        users.setdefault(output.value, []).append(_OUTSIDE)

    def user(value: int | None) -> int | None:
        """What is made of a value, if that is one thing only."""
        found = [] if value is None else users.get(value, [])
        return found[0] if len(found) == 1 else None

    def call(tensor: Any) -> int | None:
        """The result made with a parameter or a buffer, if its module was called once."""
        return user(tracer.bindings[id(tensor)][0]) if id(tensor) in tracer.bindings else None

    norms: dict[int | None, Module] = {}
    for module in model.modules():
        if _runs(module, BatchNorm2d) and call(module.running_mean) is not None:
            norms[call(module.running_mean)] = module
    found = {}
    for layer in model.modules():
        if not _runs(layer, Conv2d, ConvTranspose2d, Linear):
            continue
        result = call(layer.weight)
        follower = user(result)
        if isinstance(layer, Linear):
            # Normalization takes images: (n, c) must have been made (n, c, 1, 1).
            shape = _shape(graph, follower)
            follower = user(follower) if shape[2:] == (1, 1) and shape[:-2] == _shape(graph, result) else None
        if follower in norms:
            found[id(norms[follower])] = layer
    return found


def _shape(graph: Graph, value: int | None) -> Shape:
    return () if value is None or value == _OUTSIDE else graph.shape(value)


# ---- the arithmetic --------------------------------------------------------------------------------------------------


def _factor_and_summand(norm: Module) -> tuple[Array, Array]:
    """The normalization as scale x + shift, per channel, in float64."""
    scale = 1.0 / np.sqrt(norm.running_var.astype(np.float64) + norm.eps)
    shift = 0.0
    if norm.weight is not None:
        scale, shift = scale * norm.weight.data, norm.bias.data
    return scale, shift - norm.running_mean * scale


def _fold_into(layer: Module, scale: Array, shift: Array) -> None:
    weight, bias = layer.weight, layer.bias
    values = weight.data.astype(np.float64)
    if isinstance(layer, ConvTranspose2d):  # (ic, oc / groups, kh, kw)
        grouped = values.reshape(layer.groups, -1, *weight.shape[1:]) * scale.reshape(layer.groups, 1, -1, 1, 1)
        values = grouped.reshape(weight.shape)
    else:
        values *= scale.reshape(-1, *[1] * (weight.ndim - 1))
    trained = weight.requires_grad
    layer.weight = Parameter(values, trained, weight.dtype)
    if bias is not None:
        shift, trained = shift + bias.data * scale, bias.requires_grad
    layer.register_parameter("bias", Parameter(shift, trained, weight.dtype))


def _affine(norm: Module, scale: Array, shift: Array) -> Module:
    channels, dtype = norm.num_features, norm.running_mean.dtype
    conv = Conv2d(channels, channels, 1, groups=channels)
    conv.weight = Parameter(scale.reshape(-1, 1, 1, 1), dtype=dtype)
    conv.bias = Parameter(shift, dtype=dtype)
    return conv.train(norm.training)
