"""One row per function and geometry of the NumPy oracle: how to call it, and how PyTorch spells the same.

test_reference.py holds each row against central differences and against PyTorch.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from reference import (
    activations,
    conv,
    dropout,
    linear,
    losses,
    norm,
    pool,
    regularizers,
    shape_ops,
    upsample,
)


class Case(NamedTuple):
    name: str
    shapes: tuple  # of the inputs, all of which are differentiated
    forward: Callable  # (*inputs) -> y
    backward: (
        Callable  # (dy, *inputs) -> one gradient per input, or the gradient itself if there is one input
    )
    torch: Callable  # (torch.nn.functional, *tensors) -> y


def _constant(shape, seed=7):
    return np.random.default_rng(seed).normal(size=shape)


def _conv() -> Iterator[Case]:
    geometries = {  # x, weight, stride, padding (top, left, bottom, right), dilation, groups
        "1x1": ((2, 3, 4, 5), (4, 3, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        "3x3 same": ((2, 3, 4, 5), (2, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
        "stride": ((1, 2, 7, 8), (3, 2, 3, 2), (2, 3), (1, 0, 1, 0), (1, 1), 1),
        "one-sided padding": ((1, 2, 4, 4), (2, 2, 3, 3), (2, 1), (0, 1, 2, 3), (1, 1), 1),
        "dilation": ((1, 2, 8, 7), (2, 2, 3, 2), (1, 2), (2, 1, 0, 1), (2, 3), 1),
        "groups": ((2, 4, 5, 5), (6, 2, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2),
        "depthwise": ((2, 3, 5, 4), (6, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
        "kernel larger than image": ((1, 2, 2, 1), (2, 2, 5, 4), (1, 1), (2, 2, 2, 2), (1, 1), 1),
        "no images": ((0, 2, 4, 4), (3, 2, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    }
    for name, (x, weight, stride, padding, dilation, groups) in geometries.items():
        top, left, bottom, right = padding
        geometry = stride, padding, dilation, groups
        yield Case(
            f"conv2d, {name}",
            (x, weight, weight[:1]),
            lambda x, w, b, g=geometry: conv.conv2d_forward(x, w, b, *g),
            lambda dy, x, w, b, g=geometry: conv.conv2d_backward(dy, x, w, *g),
            lambda F, x, w, b, sides=(left, right, top, bottom), s=stride, d=dilation, g=groups: F.conv2d(
                F.pad(x, sides), w, b, s, 0, d, g
            ),
        )


def _conv_transpose() -> Iterator[Case]:
    geometries = {  # x, weight, stride, padding, output_padding, groups, dilation
        "plain": ((2, 3, 4, 3), (3, 2, 2, 2), (2, 2), (0, 0, 0, 0), (0, 0), 1, (1, 1)),
        "padding": ((1, 2, 4, 3), (2, 3, 3, 4), (2, 1), (1, 1, 1, 1), (1, 0), 1, (1, 1)),
        "one-sided padding": ((1, 2, 3, 3), (2, 2, 3, 3), (2, 3), (0, 1, 2, 0), (1, 2), 1, (1, 1)),
        "groups": ((2, 4, 3, 3), (4, 3, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2, (1, 1)),
        "dilation": ((1, 2, 3, 4), (2, 2, 3, 2), (1, 2), (1, 0, 1, 0), (0, 1), 1, (2, 3)),
        "output padding of a stride": ((1, 2, 3, 3), (2, 2, 2, 2), (1, 2), (0, 0, 0, 0), (2, 2), 1, (3, 3)),
        "no images": ((0, 2, 3, 3), (2, 2, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1, (1, 1)),
    }
    for name, (x, weight, stride, padding, output_padding, groups, dilation) in geometries.items():
        geometry = stride, padding, output_padding, groups, dilation

        def torch(F, x, w, b, geometry=geometry):
            stride, (top, left, bottom, right), output_padding, groups, dilation = geometry
            y = F.conv_transpose2d(x, w, b, stride, 0, output_padding, groups, dilation)
            return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]

        yield Case(
            f"conv_transpose2d, {name}",
            (x, weight, (weight[1] * groups,)),
            lambda x, w, b, g=geometry: conv.conv_transpose2d_forward(x, w, b, *g),
            lambda dy, x, w, b, g=geometry: conv.conv_transpose2d_backward(dy, x, w, *g),
            torch,
        )


def _linear() -> Iterator[Case]:
    for x in ((3, 5), (2, 3, 5), (0, 5)):
        yield Case(
            f"linear, {x}",
            (x, (4, 5), (4,)),
            linear.linear_forward,
            lambda dy, x, w, b: linear.linear_backward(dy, x, w),
            lambda F, x, w, b: F.linear(x, w, b),
        )


def _norm() -> Iterator[Case]:
    x, c = (3, 4, 2, 3), (4,)
    mean, var = _constant(c), _constant(c, seed=8) ** 2 + 0.1

    def torch_eval(F, x, *affine):
        as_tensor = x.new_tensor
        return F.batch_norm(x, as_tensor(mean), as_tensor(var), *affine)

    plain_and_affine = {
        "batch_norm": (
            norm.batch_norm_forward,
            norm.batch_norm_backward,
            lambda F, x, *affine: F.batch_norm(x, None, None, *affine, training=True),
        ),
        "batch_norm, evaluation": (
            lambda x, *affine: norm.batch_norm_eval_forward(x, mean, var, *affine),
            lambda dy, x, *weight: norm.batch_norm_eval_backward(dy, x, mean, var, *weight),
            torch_eval,
        ),
        "instance_norm": (
            norm.instance_norm_forward,
            norm.instance_norm_backward,
            lambda F, x, *affine: F.instance_norm(x, None, None, *affine),
        ),
        "group_norm": (
            lambda x, *affine: norm.group_norm_forward(x, 2, *affine),
            lambda dy, x, *weight: norm.group_norm_backward(dy, x, 2, *weight),
            lambda F, x, *affine: F.group_norm(x, 2, *affine),
        ),
    }
    for name, (forward, backward, torch) in plain_and_affine.items():
        yield Case(name, (x,), forward, lambda dy, x, f=backward: f(dy, x)[0], torch)
        yield Case(f"{name}, affine", (x, c, c), forward, lambda dy, x, w, b, f=backward: f(dy, x, w), torch)
    for shape in ((3,), (2, 3), (4, 2, 3)):
        yield Case(
            f"layer_norm, {shape}",
            (x, shape, shape),
            lambda x, w, b, s=shape: norm.layer_norm_forward(x, s, w, b),
            lambda dy, x, w, b, s=shape: norm.layer_norm_backward(dy, x, s, w),
            lambda F, x, w, b, s=shape: F.layer_norm(x, s, w, b),
        )
    yield Case(
        "layer_norm, not affine",
        (x,),
        lambda x: norm.layer_norm_forward(x, (2, 3)),
        lambda dy, x: norm.layer_norm_backward(dy, x, (2, 3))[0],
        lambda F, x: F.layer_norm(x, (2, 3)),
    )


def _activations() -> Iterator[Case]:
    options = {  # name -> the arguments beyond x
        "sigmoid": ({},),
        "tanh": ({},),
        "relu": ({},),
        "relu6": ({},),
        "leaky_relu": ({}, {"negative_slope": 0.3}),
        "elu": ({}, {"alpha": 1.7}),
        "selu": ({},),
        "softplus": ({}, {"beta": 2.5, "threshold": 4.0}),
        "mish": ({},),
        "silu": ({},),
        "gelu": ({}, {"approximate": "tanh"}),
        "hardsigmoid": ({},),
        "hardswish": ({},),
        "softmax": ({"dim": 1}, {"dim": -1}),
        "log_softmax": ({"dim": 1}, {"dim": -1}),
    }
    for name, variants in options.items():
        for arguments in variants:
            yield Case(
                f"{name} {arguments or ''}",
                ((2, 3, 4, 2),),
                lambda x, n=name, a=arguments: getattr(activations, f"{n}_forward")(4 * x, **a),
                lambda dy, x, n=name, a=arguments: 4 * getattr(activations, f"{n}_backward")(dy, 4 * x, **a),
                lambda F, x, n=name, a=arguments: getattr(F, n)(4 * x, **a),
            )
    for slopes in (1, 3):
        yield Case(
            f"prelu, {slopes} slopes",
            ((2, 3, 4), (slopes,)),
            activations.prelu_forward,
            activations.prelu_backward,
            lambda F, x, slope: F.prelu(x, slope),
        )


def _pool() -> Iterator[Case]:
    geometries = {  # x, kernel, stride, padding, ceil_mode
        "2x2": ((2, 3, 4, 6), (2, 2), (2, 2), (0, 0), False),
        "overlapping": ((2, 2, 5, 6), (3, 3), (2, 1), (1, 1), False),
        "gaps": ((1, 2, 7, 7), (2, 1), (3, 2), (0, 0), False),
        "ceil_mode": ((1, 2, 6, 7), (3, 2), (2, 2), (1, 0), True),
        "ceil_mode, last window dropped": ((1, 2, 4, 3), (2, 3), (3, 4), (1, 1), True),
        "1x1 image": ((2, 3, 1, 1), (3, 2), (1, 1), (1, 1), False),
        "no images": ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0), False),
    }
    for name, (x, kernel, stride, padding, ceil_mode) in geometries.items():
        for dilation in (1, 1), (2, 1):
            if x[2] + 2 * padding[0] < dilation[0] * (kernel[0] - 1) + 1:
                continue
            window = kernel, stride, padding, dilation, ceil_mode
            yield Case(
                f"max_pool2d, {name}, dilation {dilation}",
                (x,),
                lambda x, w=window: pool.max_pool2d_forward(x, *w),
                lambda dy, x, w=window: pool.max_pool2d_backward(dy, x, *w),
                lambda F, x, w=window: F.max_pool2d(x, *w),
            )
        for count_include_pad, divisor_override in ((True, None), (False, None), (True, 5)):
            window = kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
            yield Case(
                f"avg_pool2d, {name}, {count_include_pad}, {divisor_override}",
                (x,),
                lambda x, w=window: pool.avg_pool2d_forward(x, *w),
                lambda dy, x, w=window: pool.avg_pool2d_backward(dy, x, *w),
                lambda F, x, w=window: F.avg_pool2d(x, *w),
            )
    for x, size in (((2, 3, 7, 5), (3, 2)), ((2, 2, 3, 4), (5, 4)), ((1, 2, 6, 6), (1, 1))):
        yield Case(
            f"adaptive_avg_pool2d, {x} to {size}",
            (x,),
            lambda x, s=size: pool.adaptive_avg_pool2d_forward(x, s),
            pool.adaptive_avg_pool2d_backward,
            lambda F, x, s=size: F.adaptive_avg_pool2d(x, s),
        )
    yield Case(
        "global_avg_pool2d",
        ((2, 3, 4, 5),),
        pool.global_avg_pool2d_forward,
        pool.global_avg_pool2d_backward,
        lambda F, x: F.adaptive_avg_pool2d(x, 1),
    )


def _upsample() -> Iterator[Case]:
    sizes = (((2, 3, 4, 5), (8, 15)), ((1, 2, 5, 7), (3, 4)), ((2, 2, 1, 3), (4, 1)), ((0, 2, 3, 3), (6, 6)))
    for x, size in sizes:
        yield Case(
            f"nearest, {x} to {size}",
            (x,),
            lambda x, s=size: upsample.nearest_forward(x, s),
            upsample.nearest_backward,
            lambda F, x, s=size: F.interpolate(x, s),
        )
        for corners in (False, True):
            yield Case(
                f"bilinear, {x} to {size}, align_corners={corners}",
                (x,),
                lambda x, s=size, c=corners: upsample.bilinear_forward(x, s, c),
                lambda dy, x, c=corners: upsample.bilinear_backward(dy, x, c),
                lambda F, x, s=size, c=corners: F.interpolate(x, s, mode="bilinear", align_corners=c),
            )
    scale, size = (1.7, 2.3), (6, 11)  # floor(4 * 1.7), floor(5 * 2.3)
    yield Case(
        "nearest, fractional scale",
        ((1, 2, 4, 5),),
        lambda x: upsample.nearest_forward(x, size, scale),
        lambda dy, x: upsample.nearest_backward(dy, x, scale),
        lambda F, x: F.interpolate(x, scale_factor=scale),
    )
    yield Case(
        "bilinear, fractional scale",
        ((1, 2, 4, 5),),
        lambda x: upsample.bilinear_forward(x, size, False, scale),
        lambda dy, x: upsample.bilinear_backward(dy, x, False, scale),
        lambda F, x: F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False),
    )


def _shape_ops() -> Iterator[Case]:
    for start, end in ((1, -1), (0, -1), (2, 3), (-2, -1)):
        yield Case(
            f"flatten, {start} to {end}",
            ((2, 3, 4, 5),),
            lambda x, s=start, e=end: shape_ops.flatten_forward(x, s, e),
            shape_ops.flatten_backward,
            lambda F, x, s=start, e=end: x.flatten(s, e),
        )
    for a, b in (((2, 3, 4), (2, 3, 4)), ((2, 3, 4, 5), (3, 1, 1)), ((2, 1, 4), (3, 1)), ((4,), ())):
        yield Case(
            f"add, {a} and {b}",
            (a, b),
            shape_ops.add_forward,
            shape_ops.add_backward,
            lambda F, a, b: a + b,
        )
        yield Case(
            f"multiply, {a} and {b}",
            (a, b),
            shape_ops.multiply_forward,
            shape_ops.multiply_backward,
            lambda F, a, b: a * b,
        )
    for axis, shapes in (
        (1, ((2, 3, 4), (2, 1, 4), (2, 2, 4))),
        (-1, ((2, 3), (2, 2))),
        (0, ((0, 3), (2, 3))),
    ):
        yield Case(
            f"concat, {shapes} on {axis}",
            shapes,
            lambda *xs, a=axis: shape_ops.concat_forward(xs, a),
            lambda dy, *xs, a=axis: shape_ops.concat_backward(dy, xs, a),
            lambda F, *xs, a=axis: _torch_cat(xs, a),
        )
    for index in ((slice(None), slice(1, 3)), (..., slice(None, None, 2)), (1,), (slice(0, 0),)):
        yield Case(
            f"slice, {index}",
            ((2, 4, 3, 5),),
            lambda x, i=index: shape_ops.slice_forward(x, i),
            lambda dy, x, i=index: shape_ops.slice_backward(dy, x, i),
            lambda F, x, i=index: x[i],
        )


def _torch_cat(tensors, axis):
    import torch

    return torch.cat(tensors, axis)


def _dropout_and_regularizers() -> Iterator[Case]:
    mask = (_constant((3, 4)) > 0).astype(np.float64)
    for p in (0.0, 0.3, 1.0):
        yield Case(
            f"dropout, p={p}",
            ((3, 4),),
            lambda x, p=p: dropout.dropout_forward(x, mask, p),
            lambda dy, x, p=p: dropout.dropout_backward(dy, mask, p),
            lambda F, x, p=p: x * x.new_tensor(mask) / (1 - p) if p < 1 else x * 0,
        )
    penalties = {
        "l1": ((0.3,), lambda w: 0.3 * w.abs().sum()),
        "l2": ((0.3,), lambda w: 0.3 * w.square().sum()),
        "elastic_net": ((0.3, 0.2), lambda w: 0.3 * w.abs().sum() + 0.2 * w.square().sum()),
    }
    for name, (strengths, torch) in penalties.items():
        yield Case(
            f"{name} penalty",
            ((3, 4),),
            lambda w, n=name, s=strengths: getattr(regularizers, f"{n}_penalty")(w, *s),
            lambda dy, w, n=name, s=strengths: dy * getattr(regularizers, f"{n}_gradient")(w, *s),
            lambda F, w, torch=torch: torch(w),
        )


def _class_losses() -> Iterator[Case]:
    rng = np.random.default_rng(5)
    class_weights = rng.uniform(0.2, 2.0, 5)

    def torch_arguments(x, targets, options):
        weight = options.get("weight")
        return x.new_tensor(targets).long(), {
            **options,
            "weight": None if weight is None else x.new_tensor(weight),
        }

    for shape in ((6, 5), (2, 5, 3, 2)):
        targets = rng.integers(0, 5, (shape[0], *shape[2:]))
        targets.flat[0] = -1
        for reduction in ("mean", "sum", "none"):
            for options in ({}, {"weight": class_weights}, {"ignore_index": -1, "weight": class_weights}):
                labels = targets if "ignore_index" in options else np.abs(targets)
                common = {**options, "reduction": reduction}

                def torch_nll(F, x, labels=labels, common=common):
                    t, keywords = torch_arguments(x, labels, common)
                    return F.nll_loss(x, t, **keywords)

                yield Case(
                    f"nll, {shape}, {reduction}, {[*options]}",
                    (shape,),
                    lambda x, t=labels, o=common: losses.nll_forward(x, t, **o),
                    lambda dy, x, t=labels, o=common: losses.nll_backward(x, t, dloss=dy, **o),
                    torch_nll,
                )
                for smoothing in (0.0, 0.2):
                    smoothed = {**common, "label_smoothing": smoothing}

                    def torch_cross_entropy(F, x, labels=labels, smoothed=smoothed):
                        t, keywords = torch_arguments(x, labels, smoothed)
                        return F.cross_entropy(x, t, **keywords)

                    yield Case(
                        f"cross_entropy, {shape}, {reduction}, {[*options]}, smoothing {smoothing}",
                        (shape,),
                        lambda x, t=labels, o=smoothed: losses.cross_entropy_forward(x, t, **o),
                        lambda dy, x, t=labels, o=smoothed: losses.cross_entropy_backward(
                            x, t, dloss=dy, **o
                        ),
                        torch_cross_entropy,
                    )


def _elementwise_losses() -> Iterator[Case]:
    shape = (4, 3)
    target = _constant(shape)
    probability = np.random.default_rng(3).uniform(size=shape)
    weight, pos_weight = _constant(shape, seed=1) ** 2, _constant((3,), seed=2) ** 2
    for reduction in ("mean", "sum", "none"):
        for name in ("mse", "l1"):
            yield Case(
                f"{name}, {reduction}",
                (shape,),
                lambda x, n=name, r=reduction: getattr(losses, f"{n}_forward")(x, target, r),
                lambda dy, x, n=name, r=reduction: getattr(losses, f"{n}_backward")(x, target, r, dy),
                lambda F, x, n=name, r=reduction: getattr(F, f"{n}_loss")(
                    x, x.new_tensor(target), reduction=r
                ),
            )
        for weights in ({}, {"weight": weight}, {"pos_weight": pos_weight, "weight": weight}):
            yield Case(
                f"bce_with_logits, {reduction}, {[*weights]}",
                (shape,),
                lambda x, r=reduction, w=weights: losses.bce_with_logits_forward(
                    x, probability, reduction=r, **w
                ),
                lambda dy, x, r=reduction, w=weights: losses.bce_with_logits_backward(
                    x, probability, reduction=r, dloss=dy, **w
                ),
                lambda F, x, r=reduction, w=weights: F.binary_cross_entropy_with_logits(
                    x,
                    x.new_tensor(probability),
                    reduction=r,
                    **{k: x.new_tensor(v) for k, v in w.items()},
                ),
            )


CASES = [
    *_conv(),
    *_conv_transpose(),
    *_linear(),
    *_norm(),
    *_activations(),
    *_pool(),
    *_upsample(),
    *_shape_ops(),
    *_dropout_and_regularizers(),
    *_class_losses(),
    *_elementwise_losses(),
]
