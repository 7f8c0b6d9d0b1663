"""`pycnn.onnx.save`: files that ONNX Runtime answers alike, and that `load` turns back into the same network."""

import warnings

import numpy as np
import pytest

import pycnn
from helpers import assert_close, normal, raises, randomize
from pycnn import functional as F
from pycnn import nn

onnx = pytest.importorskip("onnx")


class Lambda(nn.Module):
    """A network of one line."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def with_statistics(layer):
    """Running statistics as after training."""
    layer.running_mean = normal(layer.num_features, seed=1)
    layer.running_var = np.abs(normal(layer.num_features, seed=2)) + 0.5
    layer.num_batches_tracked = np.array(7)
    return layer


def scale_by_buffer():
    model = Lambda(lambda self, x: x * self.gain + np.arange(5, dtype=np.float32))
    model.register_buffer("gain", normal((3, 1, 1)))
    return model


IMAGE = (2, 3, 9, 7)

# name: (network, shape of the input, whether the batch is left open)
NETWORKS = {
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, 2, (1, 2, 0, 1), 2), IMAGE),
    "Conv2d depthwise": (lambda: nn.Conv2d(3, 6, (3, 1), groups=3, padding="same", bias=False), IMAGE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 3, 1, (2, 1), groups=2, dilation=2), (2, 4, 5, 6)),
    "ConvTranspose2d sides": (lambda: nn.ConvTranspose2d(3, 2, 4, 2, (0, 1, 2, 0), bias=False), IMAGE),
    "Linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "Linear without bias": (lambda: nn.Linear(6, 4, bias=False), (3, 6)),
    "Linear on one row": (lambda: nn.Linear(6, 4), (6,)),
    "Linear on many": (lambda: nn.Linear(7, 4), IMAGE),
    "BatchNorm2d": (lambda: with_statistics(nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)), IMAGE),
    "BatchNorm2d not affine": (lambda: with_statistics(nn.BatchNorm2d(3, momentum=None, affine=False)), IMAGE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True), IMAGE),
    "InstanceNorm2d plain": (lambda: nn.InstanceNorm2d(3), IMAGE),
    "InstanceNorm2d tracking": (lambda: with_statistics(nn.InstanceNorm2d(3, track_running_stats=True)), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm((9, 7)), IMAGE),
    "LayerNorm without bias": (lambda: nn.LayerNorm(7, eps=1e-3, bias=False), IMAGE),
    "LayerNorm plain": (lambda: nn.LayerNorm([3, 9, 7], elementwise_affine=False), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(2, 6), (2, 6, 5, 4)),
    "GroupNorm plain": (lambda: nn.GroupNorm(3, 6, affine=False), (2, 6, 5)),
    "Sigmoid": (nn.Sigmoid, IMAGE),
    "Tanh": (nn.Tanh, IMAGE),
    "ReLU": (nn.ReLU, IMAGE),
    "ReLU6": (nn.ReLU6, IMAGE),
    "SiLU": (nn.SiLU, IMAGE),
    "Mish": (nn.Mish, IMAGE),
    "SELU": (nn.SELU, IMAGE),
    "Hardswish": (nn.Hardswish, IMAGE),
    "Hardsigmoid": (nn.Hardsigmoid, IMAGE),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), IMAGE),
    "PReLU": (nn.PReLU, IMAGE),
    "PReLU per channel": (lambda: nn.PReLU(3), IMAGE),
    "PReLU per feature": (lambda: nn.PReLU(5), (2, 5)),
    "Softplus": (nn.Softplus, IMAGE),
    "Softplus with beta": (lambda: nn.Softplus(beta=2.0, threshold=30.0), IMAGE),
    "Softplus cut early": (lambda: nn.Softplus(beta=0.5, threshold=0.25), IMAGE),
    "Softplus cut": (lambda: nn.Softplus(threshold=1.0), IMAGE),
    "GELU": (nn.GELU, IMAGE),
    "GELU tanh": (lambda: nn.GELU("tanh"), IMAGE),
    "ELU": (lambda: nn.ELU(0.7), IMAGE),
    "Softmax": (lambda: nn.Softmax(1), IMAGE),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), (4, 5)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "MaxPool2d dilated": (lambda: nn.MaxPool2d((2, 3), 1, (1, 0), 2), IMAGE),
    "MaxPool2d ceil": (lambda: nn.MaxPool2d(2, 2, ceil_mode=True), IMAGE),
    "MaxPool2d ceil padded": (lambda: nn.MaxPool2d(3, 3, 1, ceil_mode=True), IMAGE),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "AvgPool2d not counting": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "AvgPool2d ceil": (lambda: nn.AvgPool2d(2, ceil_mode=True), IMAGE),
    "AvgPool2d ceil padded": (lambda: nn.AvgPool2d(3, 3, 1, ceil_mode=True), IMAGE),
    "AvgPool2d ceil not counting": (lambda: nn.AvgPool2d(3, 3, 1, True, False), IMAGE),
    "AvgPool2d divisor": (lambda: nn.AvgPool2d(3, 2, 1, divisor_override=4), IMAGE),
    "AvgPool2d divisor ceil": (lambda: nn.AvgPool2d(2, 2, ceil_mode=True, divisor_override=3), IMAGE),
    "AdaptiveAvgPool2d global": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "AdaptiveAvgPool2d dividing": (lambda: nn.AdaptiveAvgPool2d((3, 7)), IMAGE),
    "AdaptiveAvgPool2d overlapping": (lambda: nn.AdaptiveAvgPool2d((3, None)), (2, 3, 7, 4)),
    "Upsample nearest": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "Upsample by a fraction": (lambda: nn.Upsample(scale_factor=(1.5, 2.5)), IMAGE),
    "Upsample to a size": (lambda: nn.Upsample((13, 5)), IMAGE),
    "Upsample bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "Upsample bilinear to a size": (lambda: nn.Upsample((17, 9), mode="bilinear"), IMAGE),
    "Upsample aligned": (lambda: nn.Upsample((17, 4), mode="bilinear", align_corners=True), IMAGE),
    "Upsample that changes nothing": (lambda: nn.Upsample(scale_factor=1.1, mode="bilinear"), (2, 3, 5, 5)),
    "Flatten": (nn.Flatten, IMAGE),
    "Flatten images": (lambda: nn.Flatten(2), IMAGE),
    "Flatten channels": (lambda: nn.Flatten(1, 2), IMAGE),
    "Dropout": (lambda: nn.Dropout(0.3), IMAGE),
    "Dropout2d": (nn.Dropout2d, IMAGE),
    "Identity": (nn.Identity, IMAGE),
    "add and concat": (lambda: Lambda(lambda self, x: F.concat([x + self.c(x), x], 1), c=nn.Conv2d(3, 3, 1)), IMAGE),
    "arithmetic": (lambda: Lambda(lambda self, x: (2 - x) * 3 / 4 - x * x + x * 0.5 - 1 - (x - 3) * -x), IMAGE),
    "slices": (lambda: Lambda(lambda self, x: x[:, 1:, ::-1, -5:3:-2]), IMAGE),
    "an index": (lambda: Lambda(lambda self, x: x[:, 1, ..., 2]), IMAGE),
    "rows backwards from the end": (lambda: Lambda(lambda self, x: x[:, :, 3::-1]), IMAGE),
    "reshape": (lambda: Lambda(lambda self, x: x.reshape(x.shape[0], 9, 21)), IMAGE),
    "reshape of rows": (lambda: Lambda(lambda self, x: x.reshape(-1, 7)), IMAGE),
    "softmax of sums": (lambda: Lambda(lambda self, x: F.softmax(F.flatten(x, 2), -1)), IMAGE),
    "squeeze and excite": (
        lambda: Lambda(lambda self, x: x * F.sigmoid(self.c(F.adaptive_avg_pool2d(x, 1))), c=nn.Conv2d(3, 3, 1)),
        IMAGE,
    ),
    "borders": (lambda: Lambda(lambda self, x: F.pad(x, (1, 2, 0, 3, 1, 0), value=0.5)), IMAGE),
    "mirrored borders": (lambda: Lambda(lambda self, x: F.pad(x, (1, 2, 2, 0), "reflect")), IMAGE),
    "a buffer": (scale_by_buffer, (2, 3, 4, 5)),
    "a layer twice": (lambda: Lambda(lambda self, x: self.c(F.relu(self.c(x))), c=nn.Conv2d(3, 3, 1)), IMAGE),
    "lenet5": (pycnn.models.lenet5, (1, 1, 28, 28)),
    "digits_cnn": (pycnn.models.digits_cnn, (1, 1, 28, 28)),
    "digits_cnn on other sizes": (pycnn.models.digits_cnn, (1, 1, 56, 28)),
    "resnet18": (pycnn.models.resnet18, (1, 3, 32, 32)),
    "resnet20_cifar": (pycnn.models.resnet20_cifar, (1, 3, 32, 32)),
    "mobilenet_v2": (pycnn.models.mobilenet_v2, (1, 3, 32, 32)),
    "unet": (lambda: pycnn.models.unet(base_width=4), (1, 3, 36, 20)),
}
ROWS = ("Linear on one row",)  # has no batch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def answers(path, *arrays):
    """ONNX Runtime's."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {item.name: array for item, array in zip(session.get_inputs(), arrays, strict=True)})


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer(path, name):
    make, shape = NETWORKS[name]
    model = make()
    if model.num_parameters < 1000:
        randomize(model)
    model.eval()
    pycnn.onnx.save(model, path, shape)
    loaded = pycnn.onnx.load(path)
    state, again = model.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(again[key], array, key, strict=True)
    for batch in (shape[0],) if name in ROWS else (shape[0], shape[0] + 2):
        x = 3 * normal((batch, *shape[1:]), seed=batch)
        want = model(x)
        assert_close(loaded(x), want, 2e-6, name="loaded")
        (got,) = answers(path, x)
        assert_close(got, want, 5e-6, name="ONNX Runtime")


@pytest.mark.parametrize("size", [(5, 5), (6, 7), (8, 11), (9, 4)])
@pytest.mark.parametrize("window", [(2, 1, 0), (2, 2, 1), (3, 2, 1), (3, 3, 0), (4, 3, 2), (2, 3, 1)])
def test_windows_over_the_edge(path, size, window):
    x = normal((1, 2, *size))
    for layer in (
        nn.MaxPool2d(*window, ceil_mode=True),
        nn.AvgPool2d(*window, ceil_mode=True),
        nn.AvgPool2d(*window, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(*window, ceil_mode=True, divisor_override=2),
    ):
        pycnn.onnx.save(layer, path, x.shape)
        want = layer(x)
        assert_close(pycnn.onnx.load(path)(x), want, 2e-6, name=f"loaded {layer}")
        (got,) = answers(path, x)
        assert_close(got, want, 2e-6, name=f"ONNX Runtime {layer}")


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_sizes(path, mode):
    for height in range(1, 9):
        for out in (1, 2, 3, 5, 7, 10):
            layer = nn.Upsample((out, 2 * out), mode=mode)
            x = normal((2, 1, height, 9 - height))
            pycnn.onnx.save(layer, path, x.shape)
            want = layer(x)
            assert_close(pycnn.onnx.load(path)(x), want, 2e-6, name=f"{height} to {out}")


def test_a_trained_network_trains_on(path):
    model = pycnn.models.digits_cnn(num_classes=3)
    x = normal((4, 1, 28, 28))
    model.eval()
    pycnn.onnx.save(model, path, (1, 1, 28, 28))
    loaded = pycnn.onnx.load(path)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]
    for network in (model, loaded):
        network.train()
        pycnn.manual_seed(3)
        network.zero_grad()
        y = network(x)
        dx = network.backward(y)
    assert_close(dx, model.backward(y), 1e-4)
    for (name, want), (_, got) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert_close(got.grad, want.grad / 2, 1e-5, name=name)  # which ran backward twice
    state = loaded.state_dict()
    for name, want in model.state_dict().items():
        assert_close(state[name], want, 1e-6, name=name)
    assert state["features.1.num_batches_tracked"] == 1


def test_several_inputs_and_outputs(path):
    model = Lambda(lambda self, x, y: (F.concat([self.c(x), y], 1), F.relu(x)), c=nn.Conv2d(3, 2, 1))
    pycnn.onnx.save(model, path, [(1, 3, 4, 5), (1, 2, 4, 5)])
    x, y = normal((3, 3, 4, 5)), normal((3, 2, 4, 5), seed=1)
    loaded = pycnn.onnx.load(path)
    for want, got, other in zip(model(x, y), loaded(x, y), answers(path, x, y), strict=True):
        assert_close(got, want, 1e-6)
        assert_close(other, want, 1e-6)
    file = onnx.load(path)
    assert [item.name for item in file.graph.input] == ["inputs[0]", "inputs[1]"]
    assert [item.name for item in file.graph.output] == ["output_0", "output_1"]


@pytest.mark.parametrize("function", [lambda s, x: x, lambda s, x: (F.relu(x),) * 2, lambda s, x: (x, F.relu(x) + x)])
def test_outputs_that_are_inputs_or_each_other(path, function):
    model = Lambda(function)
    pycnn.onnx.save(model, path, (1, 2))
    x = normal((3, 2))
    want, got = model(x), pycnn.onnx.load(path)(x)
    for a, b, c in zip(*[y if isinstance(y, tuple) else (y,) for y in (want, got)], answers(path, x), strict=True):
        assert_close(b, a, 0)
        assert_close(c, a, 0)


def test_what_the_file_says(path):
    pycnn.onnx.save(pycnn.models.digits_cnn(), path, (1, 1, 28, 28))
    file = onnx.load(path)
    assert (file.producer_name, file.producer_version) == ("pycnn", pycnn.__version__)
    assert file.opset_import[0].version == 17 and file.ir_version == 8
    described = (file.graph.input[0], file.graph.output[0])
    sizes = [[d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim] for item in described]
    assert sizes == [["batch", 1, 28, 28], ["batch", 10]]
    assert {"features.0.weight", "features.1.running_var"} < {tensor.name for tensor in file.graph.initializer}


def test_versions_are_as_old_as_the_operators_allow(path):
    for layer, opset in ((nn.ReLU(), 17), (nn.Mish(), 18), (nn.GELU(), 20), (nn.GroupNorm(1, 2), 21)):
        pycnn.onnx.save(layer, path, (1, 2, 3, 4))
        assert onnx.load(path).opset_import[0].version == opset


def test_a_batch_that_the_network_counts_on_is_kept(path):
    halves = Lambda(lambda self, x: x[: x.shape[0] // 2] * float(x.shape[0]))
    pycnn.onnx.save(halves, path, (4, 3))
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    x = normal((4, 3))
    assert_close(pycnn.onnx.load(path)(x), halves(x), 1e-6)


def test_the_model_stays_as_it_is(path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model[1].eval()
    before = model.state_dict()
    pycnn.onnx.save(model, path, (1, 1, 5, 5))
    assert model.training and not model[1].training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_bad_arguments(path, tmp_path):
    with raises(ValueError, "path", ".onnx"):
        pycnn.onnx.save(nn.ReLU(), tmp_path / "model.pb", (1, 2))
    with raises(TypeError, "model", "int"):
        pycnn.onnx.save(3, path, (1, 2))
    with raises(TypeError, "model", "float64", "float32"):
        pycnn.onnx.save(nn.Linear(2, 2).double(), path, (1, 2))
    with raises(TypeError, "input_shape"):
        pycnn.onnx.save(nn.ReLU(), path, 3)
    with raises(ValueError, "input_shape", "0"):
        pycnn.onnx.save(nn.ReLU(), path, (0, 3))
    with raises(TypeError, "forward", "2"):
        pycnn.onnx.save(nn.ReLU(), path, [(1, 2), (1, 2)])
    with raises(ValueError, "adaptive", "(9, 7)", "(5, 5)"):
        pycnn.onnx.save(nn.AdaptiveAvgPool2d(5), path, IMAGE)
    with raises(ValueError, "batch", "statistics"):
        pycnn.onnx.save(nn.BatchNorm2d(3, track_running_stats=False), path, IMAGE)
    with pytest.raises(FileNotFoundError):
        pycnn.onnx.save(nn.ReLU(), tmp_path / "absent" / "model.onnx", (1, 2))
    assert not path.exists()


def test_without_the_package_it_says_what_to_install(path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: pycnn.onnx.save(nn.ReLU(), path, (1, 2)), lambda: pycnn.onnx.load(path)):
        path.write_bytes(b"")
        with pytest.raises(ImportError, match=r"pip install pycnn\[onnx\]"):
            call()


def test_pytorch_names_and_answers(path):
    """A network with PyTorch's names goes through ONNX with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential({"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "act": nn.ReLU()})
        pycnn.onnx.save(model, path, IMAGE)
        names = list(pycnn.onnx.load(path).state_dict())
    assert names[:2] == ["conv.weight", "conv.bias"]
