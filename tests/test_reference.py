"""The NumPy oracle is right: its backwards are derivatives, and PyTorch agrees, in float64.

The oracle judges the C kernels, so it answers to two judges that share no code with it: central differences,
and PyTorch where that is installed.
"""

import numpy as np
import pytest

from gradcheck import central_difference
from reference import activations, conv, losses, norm, optim, pool, regularizers
from reference_cases import CASES

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def as_tuple(gradients):
    return tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)


def draw(case):
    """Inputs and dy, standard normal. No element falls on a kink, where a derivative would be a choice."""
    rng = np.random.default_rng(42)
    inputs = [np.asarray(rng.normal(size=shape)) for shape in case.shapes]
    return inputs, np.asarray(rng.normal(size=np.shape(case.forward(*inputs))))


@every_case
def test_backward_is_the_derivative_of_forward(case):
    inputs, dy = draw(case)
    gradients = as_tuple(case.backward(dy, *inputs))
    assert len(gradients) == len(inputs)
    for x, gradient in zip(inputs, gradients, strict=True):
        assert gradient.shape == x.shape
        by_definition = central_difference(lambda: (case.forward(*inputs) * dy).sum(), x)
        np.testing.assert_allclose(gradient, by_definition, rtol=1e-6, atol=1e-7)


@every_case
def test_agrees_with_torch(case):
    torch = pytest.importorskip("torch")
    inputs, dy = draw(case)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]

    y = case.torch(torch.nn.functional, *tensors)
    np.testing.assert_allclose(case.forward(*inputs), y.detach().numpy(), rtol=1e-10, atol=1e-12)

    y.backward(torch.tensor(dy))
    rounded = case.name.startswith("hardsigmoid")  # PyTorch keeps the 1/6 of this gradient in float32
    for gradient, tensor in zip(as_tuple(case.backward(dy, *inputs)), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-7 if rounded else 1e-10, atol=1e-12)


# The others have float64 constants in the table: targets, masks, running statistics.
FLOAT64_CONSTANTS = ("batch_norm, evaluation", "nll", "cross_entropy", "mse", "l1", "bce", "dropout")


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.name.startswith(FLOAT64_CONSTANTS)], ids=lambda case: case.name
)
def test_keeps_the_dtype(case):
    """A float32 oracle is float32 all through, so that it can also show what rounding does."""
    inputs, dy = draw(case)
    inputs, dy = [x.astype(np.float32) for x in inputs], dy.astype(np.float32)
    assert case.forward(*inputs).dtype == np.float32
    assert all(gradient.dtype == np.float32 for gradient in as_tuple(case.backward(dy, *inputs)))


# Values small enough to work out by hand.


def test_convolution_by_hand():
    image = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 1, 3, 3)
    corner_difference = np.array([[1.0, 0], [0, -1]]).reshape(1, 1, 2, 2)
    y = conv.conv2d_forward(image, corner_difference, bias=np.array([10.0]))
    np.testing.assert_array_equal(y[0, 0], [[6, 6], [6, 6]])  # 1 - 5 + 10, 2 - 6 + 10, ...

    dx, dweight, dbias = conv.conv2d_backward(np.ones((1, 1, 2, 2)), image, corner_difference)
    np.testing.assert_array_equal(dx[0, 0], [[1, 1, 0], [1, 0, -1], [0, -1, -1]])
    np.testing.assert_array_equal(dweight[0, 0], [[12, 16], [24, 28]])  # 1 + 2 + 4 + 5, ...
    np.testing.assert_array_equal(dbias, [4])


def test_same_padding_puts_the_odd_row_last():
    assert conv.same_padding((3, 4), (2, 1)) == (2, 1, 2, 2)


def test_transposed_convolution_is_the_transpose():
    """<conv(x), y> = <x, conv_transpose(y)>, the definition of the transpose of a linear map."""
    rng = np.random.default_rng(0)
    geometry = {"stride": (2, 1), "padding": (1, 0, 2, 1), "dilation": (1, 2), "groups": 2}
    x, weight = rng.normal(size=(2, 4, 8, 7)), rng.normal(size=(6, 2, 3, 3))
    conv_x = conv.conv2d_forward(x, weight, **geometry)
    y = rng.normal(size=conv_x.shape)
    back = conv.conv_transpose2d_forward(y, weight, output_padding=(0, 0), **geometry)
    assert back.shape == x.shape
    np.testing.assert_allclose((conv_x * y).sum(), (x * back).sum())


def test_max_pool_gives_the_gradient_to_the_first_maximum():
    dx = pool.max_pool2d_backward(np.ones((1, 1, 1, 1)), np.full((1, 1, 2, 2), 3.0), (2, 2), (2, 2))
    np.testing.assert_array_equal(dx[0, 0], [[1, 0], [0, 0]])


def test_max_pool_propagates_nan_and_minus_infinity():
    x = np.array([[np.nan, 1, -np.inf, -np.inf], [2, 3, -np.inf, -np.inf]]).reshape(1, 1, 2, 4)
    y = pool.max_pool2d_forward(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(y[0, 0], [[np.nan, -np.inf]])
    dx = pool.max_pool2d_backward(np.ones_like(y), x, (2, 2), (2, 2))
    np.testing.assert_array_equal(dx[0, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_max_pool_never_picks_the_padding():
    x = np.full((1, 1, 1, 1), -np.inf)
    dx = pool.max_pool2d_backward(np.ones((1, 1, 1, 1)), x, (3, 3), (1, 1), padding=(1, 1))
    np.testing.assert_array_equal(dx, np.ones((1, 1, 1, 1)))


@pytest.mark.parametrize(
    "name",
    [
        "sigmoid",
        "tanh",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "softplus",
        "mish",
        "silu",
        "gelu",
        "hardsigmoid",
        "hardswish",
    ],
)
def test_activation_is_finite_at_both_ends_and_keeps_nan(name):
    x = np.array([-1e4, -800, -89, 0, 89, 800, 1e4, np.nan])
    forward, backward = getattr(activations, f"{name}_forward"), getattr(activations, f"{name}_backward")
    with np.errstate(over="raise", divide="raise"):
        y, dx = forward(x), backward(np.ones_like(x), x)
    assert np.isfinite(y[:-1]).all() and np.isfinite(dx[:-1]).all()
    assert np.isnan(y[-1])


def test_softmax_of_large_numbers():
    x = np.array([[1e4, 1e4, -1e4]])
    np.testing.assert_array_equal(activations.softmax_forward(x, 1), [[0.5, 0.5, 0]])
    np.testing.assert_allclose(
        activations.log_softmax_forward(x, 1), [[-np.log(2), -np.log(2), -2e4 - np.log(2)]]
    )


def test_cross_entropy_ignores_minus_infinity_of_other_classes():
    logits = np.array([[0.0, 0.0, -np.inf]])
    assert losses.cross_entropy_forward(logits, np.array([0])) == pytest.approx(np.log(2))


def test_mean_loss_of_nothing():
    nothing, labels = np.zeros((0, 3)), np.zeros(0, int)
    assert losses.cross_entropy_forward(nothing, labels) == 0
    assert losses.nll_forward(nothing, labels) == 0
    assert losses.mse_forward(nothing, nothing) == 0
    assert losses.l1_forward(nothing, nothing) == 0
    assert losses.bce_with_logits_forward(nothing, nothing) == 0
    all_ignored = np.full(2, -100)
    assert np.isnan(losses.cross_entropy_forward(np.ones((2, 3)), all_ignored))
    assert not losses.cross_entropy_backward(np.ones((2, 3)), all_ignored).any()


def test_l1_proximal_step_lands_on_zero():
    w = regularizers.l1_proximal(np.array([-2.0, -0.05, 0, 0.05, 2]), strength=1.0, lr=0.1)
    np.testing.assert_allclose(w, [-1.9, 0, 0, 0, 1.9])


def test_batch_norm_of_an_empty_batch_changes_nothing():
    mean, var = np.array([1.0, 2]), np.array([3.0, 4])
    after = norm.batch_norm_running(np.zeros((0, 2, 3, 3)), mean, var)
    np.testing.assert_array_equal(after, (mean, var))


# What is not a function of its inputs alone: running statistics and optimizers.


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_batch_norm_running_statistics_agree_with_torch(momentum):
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    mean, var = np.zeros(3), np.ones(3)
    for step in range(4):
        x = np.random.default_rng(step).normal(2, 3, size=(2, 3, 4, 2))
        layer(torch.tensor(x))
        mean, var = norm.batch_norm_running(x, mean, var, momentum, batches_before=step)
    np.testing.assert_allclose(mean, layer.running_mean.numpy())
    np.testing.assert_allclose(var, layer.running_var.numpy())


def test_instance_norm_running_statistics_agree_with_torch():
    torch = pytest.importorskip("torch")
    layer = torch.nn.InstanceNorm2d(3, momentum=0.3, track_running_stats=True, dtype=torch.float64)
    mean, var = np.zeros(3), np.ones(3)
    for step in range(3):
        x = np.random.default_rng(step).normal(2, 3, size=(2, 3, 4, 2))
        layer(torch.tensor(x))
        mean, var = norm.instance_norm_running(x, mean, var, momentum=0.3)
    np.testing.assert_allclose(mean, layer.running_mean.numpy())
    np.testing.assert_allclose(var, layer.running_var.numpy())


@pytest.mark.parametrize(
    ("step", "name", "options"),
    [
        (optim.sgd_step, "SGD", {"lr": 0.1}),
        (optim.sgd_step, "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (optim.sgd_step, "SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
        (optim.sgd_step, "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (optim.adam_step, "Adam", {}),
        (optim.adam_step, "Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
        (optim.adamw_step, "AdamW", {}),
        (optim.adamw_step, "AdamW", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
        (optim.rmsprop_step, "RMSprop", {}),
        (optim.rmsprop_step, "RMSprop", {"lr": 0.1, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.1}),
        (optim.rmsprop_step, "RMSprop", {"lr": 0.1, "alpha": 0.9, "centered": True, "eps": 1e-3}),
    ],
)
def test_optimizer_agrees_with_torch(step, name, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, state = rng.normal(size=(3, 4)), {}
    tensor = torch.tensor(w, requires_grad=True)
    optimizer = getattr(torch.optim, name)([tensor], **options)
    for _ in range(20):
        g = rng.normal(size=w.shape)
        w = step(w, g, state, **options)
        tensor.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(w, tensor.detach().numpy(), rtol=1e-11)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_agrees_with_torch(max_norm):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(g)
    expected_norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm)
    clipped, total_norm = optim.clip_grad_norm(grads, max_norm)
    np.testing.assert_allclose(total_norm, expected_norm.item())
    for tensor, g in zip(tensors, clipped, strict=True):
        np.testing.assert_allclose(g, tensor.grad.numpy())
