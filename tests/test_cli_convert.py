"""`pycnn convert`."""

import numpy as np
import pytest

import pycnn
from helpers import assert_close, normal
from pycnn import cli
from pycnn.serialization import read_tensors

pytest.importorskip("onnx", reason="ONNX is an extra: pip install pycnn[onnx]")


@pytest.fixture
def network():
    return pycnn.models.lenet5(num_classes=4).eval()


def run(capsys, *arguments):
    code = cli.main(["convert", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_there_and_back(capsys, tmp_path, network):
    plain, onnx, again = (tmp_path / name for name in ("plain.safetensors", "network.onnx", "again.safetensors"))
    pycnn.save(network, plain)
    code, out, err = run(capsys, plain, onnx, "--model", "lenet5", "--num-classes", 4)
    assert code == 0, err
    assert f"saved {onnx}" in out and "1 x 28 x 28" in out
    x = normal((2, 1, 28, 28))
    assert_close(pycnn.onnx.load(onnx)(x), network(x), 1e-6)
    assert run(capsys, onnx, again)[0] == 0
    state = network.state_dict()
    tensors = read_tensors(again)
    assert tensors.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_what_train_saved_says_its_network(capsys, tmp_path):
    path, onnx = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    arguments = ("--limit", "40", "--epochs", "1", "--model", "lenet5", "--no-progress", "--output", str(path))
    assert cli.main(["train", *arguments]) == 0
    assert run(capsys, path, onnx)[0] == 0
    assert pycnn.onnx.load(onnx).input_shapes == [(None, 1, 28, 28)]


def test_state_dicts_of_pytorch(capsys, tmp_path, network):
    torch = pytest.importorskip("torch", reason="PyTorch writes the file; test_pth.py has some")
    path, plain, onnx = (tmp_path / name for name in ("model.pth", "plain.safetensors", "model.onnx"))
    torch.save({name: torch.from_numpy(array) for name, array in network.state_dict().items()}, path)
    assert run(capsys, path, plain)[0] == 0
    np.testing.assert_array_equal(read_tensors(plain)["fc3.bias"], network.fc3.bias.data)
    assert run(capsys, path, onnx, "--model", "lenet5", "--num-classes", 4)[0] == 0
    x = normal((2, 1, 28, 28))
    assert_close(pycnn.onnx.load(onnx)(x), network(x), 1e-6)


def test_another_size(capsys, tmp_path):
    plain, onnx = tmp_path / "plain.safetensors", tmp_path / "network.onnx"
    model = pycnn.models.digits_cnn(in_channels=3)
    pycnn.save(model, plain)
    arguments = ("--model", "digits_cnn", "--in-channels", 3, "--input-shape", "3,14,14")
    assert run(capsys, plain, onnx, *arguments)[0] == 2  # windows of several sizes
    arguments = ("--model", "digits_cnn", "--in-channels", 3, "--input-shape", "3,56,56")
    assert run(capsys, plain, onnx, *arguments)[0] == 0
    assert pycnn.onnx.load(onnx).input_shapes == [(None, 3, 56, 56)]


def test_errors(capsys, tmp_path, network):
    plain = tmp_path / "plain.safetensors"
    pycnn.save(network, plain)
    for arguments, words in (
        ((plain, tmp_path / "a.onnx"), ["--model", "plain.safetensors"]),
        ((plain, tmp_path / "a.safetensors"), ["SOURCE", "TARGET", ".onnx"]),
        ((tmp_path / "a.onnx", tmp_path / "b.onnx"), ["SOURCE", "TARGET"]),
        ((tmp_path / "absent.onnx", tmp_path / "b.safetensors"), ["absent.onnx"]),
        ((plain, tmp_path / "a.onnx", "--model", "lenet5"), ["state_dict", "fc3.weight"]),
        ((plain, tmp_path / "a.onnx", "--model", "alexnet"), ["alexnet", "lenet5"]),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert all(word in err for word in words), err
    assert not (tmp_path / "a.onnx").exists()
