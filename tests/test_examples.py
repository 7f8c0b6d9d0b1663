"""Each program in examples/ is built against the installed package and does what its README says."""

import re
import subprocess
import sys

import numpy as np
import pytest

import pycnn
from building import ROOT, compile_module, compile_program, need, run

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder in which digits.py has written digits.cnn and digit.pgm, which shows a 0."""
    folder = tmp_path_factory.mktemp("digits")
    said = run(sys.executable, EXAMPLES / "digits.py", "1", cwd=folder)
    assert float(re.search(r"([\d.]+)% of 1000", said)[1]) > 90
    assert "digit.pgm, which shows a 0" in said
    return folder


def expect_classification(program, digits):
    said = run(program, digits / "digits.cnn", digits / "digit.pgm")
    assert re.fullmatch(r"0\n[\d.]+ ms from start to answer\n", said)


def test_classify(digits, tmp_path):
    program = compile_program(EXAMPLES / "classify.c", tmp_path)
    expect_classification(program, digits)
    for arguments, complaint in (
        ([], "usage"),
        ([digits / "digits.cnn", digits / "digits.cnn"], "not a binary PGM"),
        ([digits / "digit.pgm", digits / "digit.pgm"], "digit.pgm"),
        ([digits / "absent.cnn", digits / "digit.pgm"], "absent.cnn"),
    ):
        failed = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert failed.returncode == 1 and failed.stdout == "" and complaint in failed.stderr


def test_train(tmp_path):
    said = run(compile_program(EXAMPLES / "train.c", tmp_path))
    losses = [float(number) for number in re.findall(r"loss ([\d.]+)", said)]
    assert losses[0] > 1 and losses[-1] < 0.2
    assert int(re.findall(r"(\d+) of 64 right", said)[-1]) >= 60


def test_camera(digits, tmp_path):
    program = compile_program(EXAMPLES / "camera.cpp", tmp_path)
    for threads in ("1", "3"):
        said = run(program, digits / "digits.cnn", digits / "digit.pgm", threads, "200")
        assert sum(int(count) for count in re.findall(r"in (\d+) of 200 frames", said)) == 200
        assert f"frames a second on {threads} threads" in said
        assert int(re.search(r"^0 in (\d+)", said)[1]) >= 66, "at least the frames that are not moved"


def test_cython(digits, tmp_path):
    module = compile_module(EXAMPLES / "cython/search.pyx", tmp_path)
    held_out = pycnn.data.mnist5k().test
    picture = np.zeros((28, 84), np.float32)
    for place, number in enumerate((3, 1, 4)):
        picture[:, 28 * place : 28 * place + 28] = held_out.x[number, 0] / 255
    scores = module.search(str(digits / "digits.cnn"), picture, 28)
    assert scores.shape == (1, 3, 10)
    plan = pycnn.load(digits / "digits.cnn")
    for place in range(3):
        window = picture[None, None, :, 28 * place : 28 * place + 28]
        np.testing.assert_array_equal(scores[0, place], plan(window)[0])
    assert module.search(str(digits / "digits.cnn"), picture).shape == (1, 15, 10)
    with pytest.raises(ValueError, match="picture"):
        module.search(str(digits / "digits.cnn"), picture[:20].copy())
    with pytest.raises(ValueError, match=r"absent\.cnn"):
        module.search("absent.cnn", picture)


def test_cmake(digits, tmp_path):
    [cmake, _] = need("cmake", "make")
    run(cmake, "-S", EXAMPLES, "-B", tmp_path, f"-Dcnn_core_DIR={pycnn.cmake_dir()}")
    run(cmake, "--build", tmp_path)
    expect_classification(tmp_path / "classify", digits)
    for program in ("train", "camera"):
        assert (tmp_path / program).exists()
