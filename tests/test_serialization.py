"""Weights in safetensors files: back to the bit, readable by others, and damaged ones refused."""

import json
import os
import struct

import numpy as np
import pytest
import safetensors.numpy

import pycnn
from helpers import normal, raises, randomize
from pycnn import nn
from pycnn.serialization import read_metadata


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.PReLU(), nn.Flatten(), nn.Linear(48, 5))


def trained():
    model = randomize(network())
    model(normal((4, 2, 4, 4)))  # moves the running statistics
    return model


def assert_same(model, state):
    own = model.state_dict()
    assert own.keys() == state.keys()
    for name, value in state.items():
        assert own[name].dtype == value.dtype and own[name].shape == value.shape
        np.testing.assert_array_equal(own[name], value, err_msg=name)


@pytest.fixture
def saved(tmp_path):
    model = trained()
    path = tmp_path / "model.safetensors"
    pycnn.save(model, path)
    return model, path


@pytest.mark.parametrize("double", [False, True])
def test_back_to_the_bit(tmp_path, double):
    model = trained()
    other = network()
    if double:
        model.double()
        other.double()
    path = tmp_path / "model.safetensors"
    pycnn.save(model, path)
    views = [p.data for p in other.parameters()]
    assert pycnn.load_weights(other, str(path)) == ([], [])
    assert_same(other, model.state_dict())
    assert all(p.data is view for p, view in zip(other.parameters(), views, strict=True)), "copied into place"
    tracked = other.state_dict()["1.num_batches_tracked"]
    assert tracked.shape == () and tracked.dtype == np.int64 and tracked == 1
    x = normal((2, 2, 4, 4), np.float64 if double else np.float32)
    np.testing.assert_array_equal(other.eval()(x), model.eval()(x))


def test_other_readers_understand_it(saved):
    model, path = saved
    for name, value in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert header["__metadata__"] == {"format": "pycnn", "pycnn_version": pycnn.__version__}


def test_equal_weights_give_equal_bytes(saved):
    model, path = saved
    for number in range(3):
        again = path.with_name(f"again-{number}.safetensors")
        pycnn.save(model, again)
        assert again.read_bytes() == path.read_bytes()


def test_buffers_of_any_kind(tmp_path):
    model = nn.Linear(3, 2)
    kinds = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
    for kind in kinds:
        model.register_buffer(kind, normal((3, 1)).astype(kind))
    model.register_buffer("nothing", np.zeros((0, 4), np.float32))
    path = tmp_path / "kinds.safetensors"
    pycnn.save(model, path)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)
    model.register_buffer("complex", np.zeros(2, np.complex64))
    with raises(TypeError, "complex", "complex64", "float32"):
        pycnn.save(model, path)


def test_what_others_wrote_is_read(tmp_path):
    state = trained().state_dict()
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({name: value for name, value in reversed(state.items())}, path)
    model = network()
    pycnn.load_weights(model, path)
    assert_same(model, state)
    assert read_metadata(path) == {}


def test_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    pycnn.save(network(), path, {"classes": "cat, dog"})
    assert read_metadata(path)["classes"] == "cat, dog"
    with raises(TypeError, "metadata", "int", "str"):
        pycnn.save(network(), path, {"classes": 2})


def test_float32_and_float64_are_converted(saved):
    model, path = saved
    other = network().double()
    pycnn.load_weights(other, path)
    assert other[0].weight.data.dtype == np.float64
    np.testing.assert_array_equal(other[0].weight.data, model[0].weight.data)


def test_not_strict(saved):
    model, path = saved
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5), nn.PReLU())
    missing, unexpected = pycnn.load_weights(other, path, strict=False)
    assert missing == ["5.weight"] and unexpected == ["2.weight"]
    np.testing.assert_array_equal(other[4].weight.data, model[4].weight.data)


MISFITS = {
    "missing": (lambda: nn.Sequential(network(), nn.PReLU()), ("state_dict", "missing")),
    "shape": (
        lambda: nn.Sequential(*list(network())[:4], nn.Linear(48, 6)),
        ("state_dict", "4.weight", "(5, 48)", "(6, 48)"),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_nothing_is_loaded_by_half(saved, name):
    make, words = MISFITS[name]
    other = make()
    before = other.state_dict()
    with raises(ValueError, *words):
        pycnn.load_weights(other, saved[1])
    assert_same(other, before)


def test_kinds_of_numbers_are_not_mixed(tmp_path):
    model = nn.Linear(2, 2)
    path = tmp_path / "ints.safetensors"
    safetensors.numpy.save_file({"weight": np.ones((2, 2), np.int32), "bias": np.ones(2, np.float32)}, path)
    before = model.state_dict()
    with raises(ValueError, "weight", "int32", "float32"):
        pycnn.load_weights(model, path)
    assert_same(model, before)


def with_header(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape, first, last, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


GOOD = {"weight": tensor([2, 2], 0, 16)}
DAMAGED = {
    "empty": b"",
    "no header": b"\x03\0\0",
    "a header beyond the end": struct.pack("<Q", 1 << 40) + b"{}",
    "no JSON": with_header(b"[[[[["),
    "no tensors": with_header([1, 2]),
    "data cut short": with_header(GOOD) + bytes(15),
    "data too long": with_header(GOOD) + bytes(17),
    "offsets that overlap": with_header({**GOOD, "bias": tensor([2], 8, 16)}) + bytes(16),
    "a shape that lies": with_header({"weight": tensor([2, 3], 0, 16)}) + bytes(16),
    "a shape that overflows": with_header({"weight": tensor([1 << 62, 1 << 62], 0, 16)}) + bytes(16),
    "a type of its own": with_header({"weight": tensor([2, 2], 0, 16, "F99")}) + bytes(16),
    "a pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path, name):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(DAMAGED[name])
    model = nn.Linear(2, 2)
    before = model.state_dict()
    for read in (lambda: pycnn.load_weights(model, path), lambda: read_metadata(path)):
        with raises(pycnn.FormatError, "damaged.safetensors"):
            read()
    assert_same(model, before)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 0.999])
def test_truncated_files(saved, keep):
    path = saved[1]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with raises(pycnn.FormatError, "model.safetensors"):
        pycnn.load_weights(network(), path)


def test_bad_paths(tmp_path):
    for run, suffix in ((pycnn.save, "pth"), (pycnn.load_weights, "h5")):
        with raises(ValueError, "path", f"model.{suffix}", ".safetensors"):
            run(network(), f"model.{suffix}")
        with raises(TypeError, "model", "dict"):
            run({}, tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        pycnn.load_weights(network(), tmp_path / "absent.safetensors")
    with pytest.raises(OSError):
        pycnn.save(network(), tmp_path / "absent" / "a.safetensors")


def test_a_failure_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    content = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        pycnn.save(randomize(model), path)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing is left lying about"


def test_a_file_is_as_open_as_others(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    pycnn.save(network(), tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == plain.stat().st_mode
