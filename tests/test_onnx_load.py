"""`pycnn.onnx.load`: what other programs write, and what no program should have written."""

import copy
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import pycnn
from helpers import assert_close, normal, raises
from pycnn import nn, regularizers

onnx = pytest.importorskip("onnx")
helper = onnx.helper
FLOAT = onnx.TensorProto.FLOAT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def tensor(name, array):
    return onnx.numpy_helper.from_array(np.asarray(array), name)


def write(path, nodes, arrays, shape, out=None, opset=17, more_inputs=()):
    """A model of these nodes: (operator, sources, result, attributes), from 'x' to the last result."""
    made = [helper.make_node(op, sources, [result], name=f"the {op}", **more) for op, sources, result, more in nodes]
    inputs = [helper.make_tensor_value_info(name, FLOAT, s) for name, s in (("x", shape), *more_inputs)]
    outputs = [helper.make_tensor_value_info(nodes[-1][2], FLOAT, out)]
    graph = helper.make_graph(made, "g", inputs, outputs, [tensor(n, a) for n, a in arrays.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def loaded(*args, **kwargs):
    return pycnn.onnx.load(write(*args, **kwargs))


# ---- what torch.onnx.export writes -----------------------------------------------------------------------------------


def torch_networks(torch):
    t = torch.nn

    class Attention(t.Module):
        """Squeeze and excitation, a residual, two branches and a flattening by view."""

        def __init__(self):
            super().__init__()
            self.conv = t.Conv2d(3, 8, 3, padding=1)
            self.bn = t.BatchNorm2d(8)
            self.gate = t.Sequential(t.AdaptiveAvgPool2d(1), t.Conv2d(8, 8, 1), t.Hardsigmoid())
            self.branch = t.ConvTranspose2d(8, 4, 2, 2)
            self.fc = t.Linear(12 * 4 * 4, 5)

        def forward(self, x):
            x = torch.relu(self.bn(self.conv(x)))
            x = x * self.gate(x) + x
            y = t.functional.max_pool2d(self.branch(x), 2)
            x = t.functional.avg_pool2d(torch.cat([x, y], 1), 2)
            return self.fc(x.view(x.size(0), -1))

    class Shuffle(t.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)

    def sequence(*layers):
        return t.Sequential(t.Conv2d(3, 6, 3), *layers)

    return {
        "attention": Attention(),
        "gelu": sequence(t.GELU(), t.GELU("tanh"), t.Flatten(), t.Linear(216, 3)),
        "activations": sequence(
            t.SiLU(), t.Hardswish(), t.Mish(), t.ELU(0.5), t.SELU(), t.PReLU(6), t.Softplus(), t.ReLU6()
        ),
        "norms": sequence(t.GroupNorm(3, 6), t.InstanceNorm2d(6, affine=True), t.LayerNorm([6, 6])),
        "shuffle": t.Sequential(t.Conv2d(3, 16, 1), Shuffle(), t.PixelShuffle(2)),
        "resizing": sequence(
            t.Upsample(scale_factor=2), t.Upsample(scale_factor=1.5, mode="bilinear"), t.MaxPool2d(3, 2, 1, 1)
        ),
        "aligned": sequence(t.Upsample(size=(9, 13), mode="bilinear", align_corners=True), t.Upsample(size=7)),
        "borders": t.Sequential(
            t.ZeroPad2d((1, 2, 0, 1)), t.Conv2d(3, 4, 3), t.ReflectionPad2d(2), t.ReplicationPad2d(1)
        ),
    }


TORCH_NETWORKS = ("attention", "gelu", "activations", "norms", "shuffle", "resizing", "aligned", "borders")


@pytest.mark.parametrize("fixed", [False, True], ids=["any batch", "a batch of one"])
@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_torch_exports(path, name, fixed):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch_networks(torch)[name].eval()
    example = torch.zeros(1, 3, 8, 8)
    axes = None if fixed else {"x": {0: "batch"}, "y": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            path,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,  # which would change names, too
        )
    network = pycnn.onnx.load(path)
    for batch in (1, 3):
        x = normal((batch, 3, 8, 8))
        with torch.no_grad():
            want = model(torch.from_numpy(x)).numpy()
        assert_close(network(x), want, 1e-5)
    own = {key for key, value in model.state_dict().items() if value.is_floating_point()}
    assert own == network.state_dict().keys()
    # And a way back.
    x = normal((2, 3, 8, 8))
    network.zero_grad()
    y = network(x)
    dx = network.backward(np.ones_like(y))
    source = torch.from_numpy(x).requires_grad_()
    model(source).sum().backward()
    assert_close(dx, source.grad.numpy(), 1e-4)
    for key, parameter in model.named_parameters():
        grad = dict(network.named_parameters())[key].grad
        assert_close(grad, parameter.grad.numpy().reshape(grad.shape), 1e-4, name=key)


# Of the models in the onnx package that PyTorch of old wrote.
CONVERTED = {"pytorch-converted": 36, "pytorch-operator": 19, "simple": 1}


@pytest.mark.parametrize("folder", CONVERTED)
def test_bundled_models(folder):
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / folder
    if not root.is_dir():
        pytest.skip("this onnx package has no such folder")
    right = []
    for model in sorted(root.glob("*/model.onnx")):
        data = model.parent / "test_data_set_0"
        inputs, outputs = (
            [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in sorted(data.glob(f"{kind}_*.pb"))]
            for kind in ("input", "output")
        )
        try:
            network = pycnn.onnx.load(model)
            y = network(*inputs[: len(network.input_names)])
        except (ValueError, TypeError):
            continue
        for got, want in zip(y if isinstance(y, tuple) else (y,), outputs, strict=True):
            assert_close(got, want, 1e-5, name=model.parent.name)
        right.append(model.parent.name)
    assert len(right) >= CONVERTED[folder], right


# ---- patterns --------------------------------------------------------------------------------------------------------


def test_flatten_by_shape_arithmetic(path):
    nodes = [
        ("Shape", ["x"], "s", {}),
        ("Slice", ["s", "zero", "one"], "n", {}),
        ("Concat", ["n", "minus"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "y", {}),
    ]
    arrays = {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    model = loaded(path, nodes, arrays, ["n", 2, "h", "w"])
    for shape in ((1, 2, 3, 4), (5, 2, 1, 2), (0, 2, 3, 3)):
        assert model(normal(shape)).shape == (shape[0], math.prod(shape[1:]))


@pytest.mark.parametrize("order", range(4))
def test_gelu_in_any_order(path, order):
    erf = [("Div", ["x", "r"], "u", {}), ("Erf", ["u"], "e", {}), ("Add", ["e", "one"], "a", {})]
    ends = [
        [("Mul", ["x", "a"], "p", {}), ("Mul", ["p", "half"], "y", {})],
        [("Mul", ["half", "x"], "p", {}), ("Mul", ["a", "p"], "y", {})],
        [("Mul", ["a", "half"], "p", {}), ("Mul", ["p", "x"], "y", {})],
        [("Mul", ["x", "a"], "p", {}), ("Div", ["p", "two"], "y", {})],
    ]
    arrays = {k: np.float32(v) for k, v in {"r": math.sqrt(2), "one": 1, "half": 0.5, "two": 2}.items()}
    model = loaded(path, erf + ends[order], arrays, ["n", 7])
    x = 3 * normal((2, 7))
    assert_close(model(x), nn.GELU()(x), 1e-6)
    assert len(model._nodes) == 1


def test_what_is_no_gelu_is_refused(path):
    nodes = [("Erf", ["x"], "e", {}), ("Add", ["e", "one"], "a", {}), ("Mul", ["x", "a"], "y", {})]
    with raises(ValueError, "the Erf", "Erf", "docs/onnx.md"):
        loaded(path, nodes, {"one": np.float32(1)}, ["n", 7])


def test_zeros_around_a_convolution_are_its_padding(path):
    w = normal((2, 3, 3, 3))
    nodes = [
        ("Pad", ["x", "pads"], "p", {}),
        ("Conv", ["p", "w"], "y", {"pads": [1, 0, 0, 0], "strides": [2, 1]}),
    ]
    model = loaded(path, nodes, {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "w": w}, ["n", 3, 6, 5])
    x = normal((2, 3, 6, 5))
    assert_close(model(x), pycnn.functional.conv2d(x, w, None, (2, 1), (2, 2, 0, 1)), 1e-6)
    assert [node.operator for node in model._nodes] == ["Conv"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("operator", ["Conv", "MaxPool", "AveragePool", "ConvTranspose"])
def test_auto_pad(path, operator, mode):
    runtime = pytest.importorskip("onnxruntime")
    weights = {"w": normal((3, 3, 3, 2))} if operator.startswith("Conv") else {}
    more = {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": mode}
    write(path, [(operator, ["x", *weights], "y", more)], weights, ["n", 3, None, None])
    model = pycnn.onnx.load(path)
    for size in ((7, 8), (6, 5), (4, 9)):
        x = normal((2, 3, *size))
        (want,) = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        assert_close(model(x), want, 1e-6)


@pytest.mark.parametrize("limits", [(0, 6), (-1, 1), (0, None), (None, 2), (None, None), (0.5, 0.5), (2, 1)])
def test_clip(path, limits):
    low, high = limits
    arrays = {name: np.float32(v) for name, v in (("low", low), ("high", high)) if v is not None}
    sources = ["x", "low" if low is not None else "", "high" if high is not None else ""]
    x = 4 * normal((3, 50))
    want = np.minimum(np.maximum(x, -np.inf if low is None else low), np.inf if high is None else high)
    assert_close(loaded(path, [("Clip", sources, "y", {})], arrays, ["n", 50])(x), want, 1e-6)


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_transpose(path, perm):
    x = normal((2, 3, 40, 5))
    model = loaded(path, [("Transpose", ["x"], "y", {"perm": perm})], {}, [2, 3, 40, 5])
    np.testing.assert_array_equal(model(x), x.transpose(perm))
    dy = normal([x.shape[axis] for axis in perm], seed=1)
    np.testing.assert_array_equal(model.backward(dy), dy.transpose(np.argsort(perm)))


# ---- parameters ------------------------------------------------------------------------------------------------------


def small_network(path, **changes):
    arrays = {
        "conv.weight": normal((4, 3, 3, 3)),
        "conv.bias": normal(4),
        "bn.weight": normal(4),
        "bn.bias": normal(4),
        "bn.running_mean": normal(4),
        "bn.running_var": np.abs(normal(4)) + 1,
        "training": normal((4, 1, 1)),  # a name that modules have, too
        "factor": np.float32(0.5),
        "fc": normal((4, 2)),
        **changes,
    }
    statistics = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    nodes = [
        ("Conv", ["x", "conv.weight", "conv.bias"], "a", {}),
        ("BatchNormalization", ["a", *statistics], "b", {"momentum": 0.8}),
        ("Mul", ["b", "training"], "c", {}),
        ("Mul", ["c", "factor"], "d", {}),
        ("GlobalAveragePool", ["d"], "e", {}),
        ("Flatten", ["e"], "f", {}),
        ("MatMul", ["f", "fc"], "y", {}),
    ]
    write(path, nodes, arrays, ["n", 3, None, None])
    return pycnn.onnx.load(path), arrays


def test_initializers_are_parameters_and_buffers(path):
    model, arrays = small_network(path)
    parameters = dict(model.named_parameters())
    assert set(parameters) == {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "training", "fc"}
    assert {name for name, _ in model.named_buffers()} == {"bn.running_mean", "bn.running_var"}
    np.testing.assert_array_equal(parameters["fc"].data, arrays["fc"].T)  # as pycnn has matrices
    assert model.training is False
    chosen = {id(p) for p in regularizers.L2(0.1).chosen(model)}
    assert chosen == {id(parameters["conv.weight"]), id(parameters["fc"])}


def test_it_trains_and_copies(path):
    model, _ = small_network(path)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    targets = np.array([0, 1] * 3)
    x = normal((6, 3, 5, 6)) + targets[:, None, None, None].astype(np.float32)
    np.testing.assert_array_equal(twin(x), model(x))
    before = model.state_dict()
    model.train()
    optimizer = pycnn.optim.SGD(model.parameters(), 0.3)
    trainer = pycnn.Trainer(model, pycnn.losses.CrossEntropyLoss(), optimizer)
    losses = [trainer.step(x, targets) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    changed = {name for name, array in model.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed >= set(before) - {"conv.bias"}  # which normalization makes of no effect


def test_running_statistics_move_by_the_momentum_of_the_file(path):
    model, arrays = small_network(path)
    model.train()
    x = normal((6, 3, 5, 6))
    model(x)
    y = pycnn.functional.conv2d(x, arrays["conv.weight"], arrays["conv.bias"])
    want = 0.8 * arrays["bn.running_mean"] + 0.2 * y.mean((0, 2, 3))
    assert_close(model.state_dict()["bn.running_mean"], want, 1e-5)


def test_in_float64(path):
    model, _ = small_network(path)
    x = normal((2, 3, 5, 6))
    want = model(x)
    assert_close(model.double()(x.astype(np.float64)), want, 1e-5)


def test_other_floats_become_float32(path):
    w = normal((4, 3, 3, 3))
    for dtype in (np.float16, np.float64):
        nodes = [("Cast", ["w"], "v", {"to": FLOAT}), ("Conv", ["x", "v"], "y", {})]
        model = loaded(path, nodes, {"w": w.astype(dtype)}, ["n", 3, 5, 5])
        np.testing.assert_array_equal(model.state_dict()["w"], w.astype(dtype).astype(np.float32))
    with raises(ValueError, "w", "float64", "float32"):
        loaded(path, nodes, {"w": w.astype(np.float64) * 1e300}, ["n", 3, 5, 5])


def test_names_of_inputs(path):
    model, _ = small_network(path)
    assert (model.input_names, model.output_names, model.input_shapes) == (["x"], ["y"], [(None, 3, None, None)])
    with raises(ValueError, "x", "4"):
        model(normal((3, 5, 6)))
    with raises(TypeError, "x", "float64"):
        model(np.zeros((1, 3, 5, 6)))
    with raises(TypeError, "2", "x"):
        model(normal((1, 3, 5, 6)), normal((1, 3, 5, 6)))


# ---- external data ---------------------------------------------------------------------------------------------------


def external(path, location="weights.bin", **entries):
    write(path, [("Conv", ["x", "w"], "y", {})], {"w": np.zeros((2, 3, 1, 1), np.float32)}, ["n", 3, 4, 4])
    model = onnx.load(path)
    (w,) = model.graph.initializer
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        w.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(path, tmp_path):
    w = normal((2, 3, 1, 1))
    (tmp_path / "deeper").mkdir()
    for location in ("weights.bin", "deeper/weights.bin"):
        (tmp_path / location).write_bytes(bytes(8) + w.tobytes())
        model = pycnn.onnx.load(external(path, location, offset=8, length=w.nbytes))
        np.testing.assert_array_equal(model.state_dict()["w"], w)


def test_external_data_elsewhere_are_refused(path, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.bin"
    outside.write_bytes(bytes(1000))
    (tmp_path / "link.bin").symlink_to(outside)
    (tmp_path / "short.bin").write_bytes(bytes(7))
    for location, entries, word in (
        (f"../{outside.name}", {}, "outside"),
        (str(outside), {}, "outside"),
        ("link.bin", {}, "outside"),
        ("", {}, "outside"),
        ("absent.bin", {}, "not there"),
        ("short.bin", {"length": 24}, "7"),
        ("short.bin", {}, "w"),
        ("short.bin", {"offset": -4}, "-4"),
        ("short.bin", {"offset": "x"}, "w"),
    ):
        with raises(pycnn.FormatError, "w", word):
            pycnn.onnx.load(external(path, location, **entries))


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_damaged_files(path, tmp_path):
    small_network(path)
    content = path.read_bytes()
    for damaged in (b"", b"no model", content[: len(content) // 2], content[:-3], bytes(100), b"\x08\x08"):
        path.write_bytes(damaged)
        with raises(pycnn.FormatError, "model.onnx"):
            pycnn.onnx.load(path)
    with pytest.raises(FileNotFoundError):
        pycnn.onnx.load(tmp_path / "absent.onnx")
    with raises(ValueError, "path", ".onnx"):
        pycnn.onnx.load(tmp_path / "model.pb")


def test_bits_that_flip_are_no_crash(path):
    """Whatever stands in the file: a network, or an error of the kinds that `load` names."""
    small_network(path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        changed = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            pycnn.onnx.load(path)
            outcomes.add("a network")
        except ValueError as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"a network", "FormatError"}


REFUSED = {
    "operator": ([("Sin", ["x"], "y", {})], {}, ["the Sin", "Sin", "docs/onnx.md"]),
    "three dimensions": (
        [("Conv", ["x", "w"], "y", {})],
        {"w": np.zeros((2, 3, 1, 1, 1), np.float32)},
        ["the Conv", "(2, 3, 1, 1, 1)", "4"],
    ),
    "channels": ([("Conv", ["x", "w"], "y", {})], {"w": np.zeros((2, 5, 1, 1), np.float32)}, ["the Conv", "5"]),
    "weights computed": ([("Relu", ["x"], "w", {}), ("Conv", ["x", "w"], "y", {})], {}, ["the Conv", "constant"]),
    "products of tensors": ([("MatMul", ["x", "x"], "y", {})], {}, ["the MatMul", "matrix"]),
    "division": ([("Div", ["x", "x"], "y", {})], {}, ["the Div", "constants"]),
    "values as a shape": ([("Reshape", ["x", "s"], "y", {})], {"s": np.array([7])}, ["the Reshape", "7"]),
    "comparison": (
        [("Greater", ["x", "c"], "g", {}), ("Where", ["g", "x", "c"], "y", {})],
        {"c": np.float32(1)},
        ["the Greater", "constants"],
    ),
    "cubic": (
        [("Resize", ["x", "", "s"], "y", {"mode": "cubic"})],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        ["the Resize", "cubic", "linear"],
    ),
    "cast": ([("Cast", ["x"], "c", {"to": 7}), ("Cast", ["c"], "y", {"to": 1})], {}, ["the Cast", "7"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(path, name):
    nodes, arrays, words = REFUSED[name]
    with raises(ValueError, "model.onnx", *words):
        loaded(path, nodes, arrays, [1, 3, 4, 4])


def test_refused_files(path):
    with raises(ValueError, "5", "6"):
        loaded(path, [("Relu", ["x"], "y", {})], {}, [1, 2], opset=5)
    write(path, [("Relu", ["x"], "y", {})], {}, [1, 2])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    model.graph.node[0].op_type = "Abs"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, path)
    with raises(ValueError, "input", "x", "floats"):
        pycnn.onnx.load(path)
    write(path, [("Relu", ["x"], "y", {})], {}, [1, 2])
    model = onnx.load(path)
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)
    onnx.save(model, path)
    with raises(ValueError, "com.example", "Relu"):
        pycnn.onnx.load(path)
    arrays = {"s": np.array([2**20, 2**20]), "c": np.float32(1)}
    with raises(ValueError, "the Expand", str(2**20)):
        loaded(path, [("Expand", ["c", "s"], "e", {}), ("Add", ["x", "e"], "y", {})], arrays, [1, 2])
    write(path, [("Relu", ["x"], "y", {})], {}, [1, 2])
    model = onnx.load(path)
    model.metadata_props.add(key="pycnn.state", value="{")
    onnx.save(model, path)
    with raises(pycnn.FormatError, "pycnn.state"):
        pycnn.onnx.load(path)
