"""Model files: a plan that is saved comes back to the bit, its weights open anywhere, damage is told."""

import json
import struct
import zlib

import numpy as np
import pytest
from safetensors.numpy import load_file

import pycnn
from pycnn import functional as F
from pycnn import nn
from tests.test_plan import NETWORKS, Residual, Several, images, settle


class Odd(nn.Module):
    """Operations that few networks have, and several results of one list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 3, padding=1, dilation=1)
        self.prelu = nn.PReLU(12)
        self.single = nn.PReLU()
        self.drop = nn.Dropout(0.5)
        self.norm = nn.GroupNorm(3, 12)
        self.rows = nn.LayerNorm(10)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.nearest = nn.Upsample(scale_factor=2)

    def forward(self, x):
        y = self.drop(self.prelu(self.conv(x)))
        left, right = y[:, ::2, 1:], y[:, 1::2, :-1]
        joined = F.concat([left * right, left + 2 * right, left], 1)
        z = self.rows(self.single(joined - 0.5)[:, :, :, ::-1])
        return [F.softmax(z, 1), self.up(self.norm(y)), self.nearest(z), F.log_softmax(F.pad(y, (1, 2)), 1)]


def build(name):
    pycnn.manual_seed(0)
    if name in NETWORKS:
        model = NETWORKS[name]()
        channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 8)
        return settle(model, images(4, channels, 14, 14)), [(2, channels, 14, 14)]
    shapes = {"odd": (2, 6, 10, 10), "resnet18": (1, 3, 64, 64), "mobilenet_v2": (1, 3, 64, 64), "unet": (1, 3, 48, 48),
              "lenet5": (3, 1, 28, 28), "resnet20_cifar": (4, 3, 32, 32), "several": (2, 3, 4, 5)}  # fmt: skip
    own = {"odd": Odd, "several": Several, "unet": lambda: pycnn.models.unet(base_width=16)}
    made = own.get(name) or getattr(pycnn.models, name)
    model, shape = made(), shapes[name]
    if name == "several":
        return model, [shape, shape]
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean[...] = rng.normal(0, 0.3, module.running_mean.shape)
            module.running_var[...] = rng.uniform(0.5, 2, module.running_var.shape)
            module.bias.data[...] = rng.normal(0, 0.2, module.bias.shape)
    return model.eval(), [shape]


def bits(result):
    return [a.tobytes() for a in result] if isinstance(result, (tuple, list)) else [result.tobytes()]


MODELS = [*NETWORKS, "odd", "several", "lenet5", "resnet18", "mobilenet_v2", "unet", "resnet20_cifar"]


@pytest.mark.parametrize("name", MODELS)
def test_comes_back_to_the_bit(name, tmp_path):
    model, shapes = build(name)
    inputs = [images(*shape, seed=7 + i) for i, shape in enumerate(shapes)]
    path = tmp_path / "model.cnn"
    contents = []
    for winograd in (True, False):
        plan = pycnn.compile(model, shapes, winograd=winograd)
        plan.save(path)
        contents.append(path.read_bytes())
        loaded = pycnn.load(path, winograd=winograd)
        result, again = plan(*inputs), loaded(*inputs)
        assert type(result) is type(again)
        assert bits(result) == bits(again)
        assert loaded.input_shapes == plan.input_shapes and loaded.output_shapes == plan.output_shapes
        assert buffers(loaded) == buffers(plan) and loaded.dtype == plan.dtype
        loaded.save(path)
        assert path.read_bytes() == contents[-1]
    # What a kernel makes of the weights leaves no trace, and a plan of either kind can be had from any file.
    tensors = [load_file(_write(tmp_path / "a.safetensors", content)) for content in contents]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(np.array_equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    _write(path, contents[0])
    assert bits(pycnn.load(path, winograd=False)(*inputs)) == bits(plan(*inputs))


def buffers(plan):
    """Bytes by kind, without the tables, in which a saved plan has the operations that were folded away."""
    return {kind: size for kind, size in plan.memory.items() if kind != "tables"}


def _write(path, content):
    path.write_bytes(content)
    return path


def test_float64(tmp_path):
    model, [shape] = build("residual")
    model.double()
    x = images(*shape).astype(np.float64)
    plan = pycnn.compile(model, shape)
    plan.save(tmp_path / "model.cnn")
    loaded = pycnn.load(str(tmp_path / "model.cnn"), threads=1)
    assert loaded.dtype == np.float64
    assert np.array_equal(loaded(x), plan(x)) and loaded(x).dtype == np.float64


def test_any_reader_opens_the_weights(tmp_path):
    """Names are those of the state dict; a normalization is gone into the convolution before it."""
    model, [shape] = build("residual")
    pycnn.compile(model, shape).save(tmp_path / "model.cnn")
    content = (tmp_path / "model.cnn").read_bytes()
    tensors = load_file(tmp_path / "model.cnn")
    assert set(tensors) == {f"{name}.{kind}" for name in ("conv1", "conv2", "down") for kind in ("weight", "bias")}
    bn = model.bn3
    scale = bn.weight.data / np.sqrt(bn.running_var + bn.eps)
    wanted = model.down.weight.data * scale[:, None, None, None]
    assert np.allclose(tensors["down.weight"], wanted, rtol=1e-6, atol=0)

    # The metadata, as docs/model-file.md has it.
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    assert metadata["format"] == "cnn" and metadata["version"] == "1"
    at = content.index(b'"checksum":"') + len('"checksum":"')
    assert int(metadata["checksum"], 16) == zlib.crc32(content[:at] + b"00000000" + content[at + 8 :])
    graph = json.loads(metadata["graph"])
    assert graph["inputs"] == [{"name": "x", "dtype": "float32", "shape": list(shape)}]
    assert graph["constants"] == sorted(tensors)
    assert [node["op"] for node in graph["nodes"]].count("conv2d") == 3
    assert graph["nodes"][0]["attributes"]["stride"] == [1, 1]
    assert graph["outputs"] == [{"name": "y", "value": 1 + len(tensors) + len(graph["nodes"]) - 1}]
    assert (8 + length) % 64 == 0


def test_pruned_and_extreme_weights_survive(tmp_path):
    """Zeros of both signs, denormals and the largest numbers, in a convolution that runs by Winograd and in one that
    does not."""
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1, bias=False))
    special = np.array([0.0, -0.0, 1e-45, -1e-40, 3.4e38, 1.0, -1.5], np.float32)
    for layer in (model[0], model[1]):
        layer.weight.data[...] = np.random.default_rng(0).choice(special, layer.weight.shape)
    pycnn.compile(model, (1, 16, 32, 32)).save(tmp_path / "model.cnn")
    tensors = load_file(tmp_path / "model.cnn")
    for name in ("0.weight", "1.weight"):
        own = model.state_dict()[name]
        assert np.ascontiguousarray(own).tobytes() == tensors[name].tobytes()


def test_small_images_keep_taps_that_nobody_reads(tmp_path):
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 5, stride=4, padding=2), nn.ReLU())
    plan = pycnn.compile(model, (1, 8, 1, 1))
    plan.save(tmp_path / "model.cnn")
    assert np.array_equal(load_file(tmp_path / "model.cnn")["0.weight"], model[0].weight.data)
    assert np.array_equal(load_file(tmp_path / "model.cnn")["1.weight"], model[1].weight.data)
    x = images(1, 8, 1, 1)
    assert np.array_equal(pycnn.load(tmp_path / "model.cnn")(x), plan(x))


def test_tied_weights_are_stored_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return self.conv(F.relu(self.conv(x)))

    plan = pycnn.compile(Twice(), (1, 16, 24, 24))
    plan.save(tmp_path / "model.cnn")
    assert set(load_file(tmp_path / "model.cnn")) == {"conv.weight", "conv.bias"}
    x = images(1, 16, 24, 24)
    assert np.array_equal(pycnn.load(tmp_path / "model.cnn")(x), plan(x))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small file's content."""
    path = tmp_path_factory.mktemp("small") / "model.cnn"
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    pycnn.compile(model.eval(), (1, 2, 4, 4)).save(path)
    return path.read_bytes()


def test_every_damage_is_told(small, tmp_path):
    path = tmp_path / "model.cnn"
    for size in range(len(small)):
        path.write_bytes(small[:size])
        with pytest.raises(pycnn.FormatError):
            pycnn.load(path)
    for at in range(len(small)):
        path.write_bytes(small[:at] + bytes([small[at] ^ 1 << at % 8]) + small[at + 1 :])
        with pytest.raises(pycnn.FormatError):
            pycnn.load(path)
    path.write_bytes(small + b"\0")
    with pytest.raises(pycnn.FormatError, match=r"model\.cnn: damaged"):
        pycnn.load(path)


def test_other_files_are_told(tmp_path):
    path = tmp_path / "weights.safetensors"
    pycnn.save(nn.Conv2d(2, 2, 3), path)
    with pytest.raises(pycnn.FormatError, match=r"weights\.safetensors: .*no model file"):
        pycnn.load(path)
    path.write_bytes(b"")
    with pytest.raises(pycnn.FormatError, match="0 bytes"):
        pycnn.load(path)
    with pytest.raises(FileNotFoundError):
        pycnn.load(tmp_path / "missing.cnn")
    with pytest.raises(IsADirectoryError):
        pycnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        pycnn.compile(nn.ReLU(), (1, 2)).save(tmp_path / "missing" / "model.cnn")


def test_arguments(small, tmp_path):
    path = tmp_path / "model.cnn"
    path.write_bytes(small)
    with pytest.raises(ValueError, match="threads"):
        pycnn.load(path, threads=0)
    with pytest.raises(TypeError, match="threads"):
        pycnn.load(path, threads="2")
    with pytest.raises(TypeError):
        pycnn.load(None)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 2, 4, 4\), expected \(1, 2, 4, 4\)"):
        pycnn.load(path)(images(2, 2, 4, 4))


def test_a_failed_save_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "model.cnn"
    path.write_bytes(small)
    plan = pycnn.load(path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        plan.save(path)
    assert path.read_bytes() == small and [p.name for p in tmp_path.iterdir()] == ["model.cnn"]


def test_plans_outlive_their_file(small, tmp_path):
    path = tmp_path / "model.cnn"
    path.write_bytes(small)
    plan = pycnn.load(path)
    x = images(1, 2, 4, 4)
    before = plan(x)
    with path.open("r+b") as file:
        file.truncate(0)
    assert np.array_equal(plan(x), before)


def test_memory_of_resnet50(tmp_path):
    """Packed weights, and those kept beside them, stay within 1.6 times the file's."""
    plan = pycnn.compile(pycnn.models.resnet50(), (1, 3, 224, 224))
    plan.save(tmp_path / "model.cnn")
    assert plan.memory["constants"] <= 1.6 * (tmp_path / "model.cnn").stat().st_size


def test_residual_fuses_again(tmp_path):
    """The steps of a loaded plan are those of the saved one: its buffers tell."""
    model = settle(Residual(16), images(2, 16, 12, 12))
    plan = pycnn.compile(model, (1, 16, 12, 12))
    plan.save(tmp_path / "model.cnn")
    assert buffers(pycnn.load(tmp_path / "model.cnn")) == buffers(plan)
