"""The command line, from training to prediction, and what it says to bad input."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import pycnn
from pycnn import cli, data, nn
from pycnn.serialization import read_metadata

Image = pytest.importorskip("PIL.Image")


def run(capsys, *arguments):
    """Exit code, what went to stdout, what went to stderr."""
    try:
        code = cli.main([*map(str, arguments)])
    except SystemExit as end:  # argparse
        code = end.code
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file that `pycnn train` saved."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    arguments = ["--model", "lenet5", "--limit", "1500", "--epochs", "4", "--batch-size", "32"]
    assert cli.main(["train", *arguments, "--no-progress", "--output", str(path)]) == 0
    return path


@pytest.fixture
def digits(tmp_path):
    """Images of held-out digits, and their classes."""
    test = data.mnist5k().test
    paths = []
    for number in (5, 105, 305, 705):
        path = tmp_path / f"digit-{number}.png"
        Image.fromarray(test.x[number, 0]).save(path)
        paths.append(path)
    return paths, [str(test.y[number]) for number in (5, 105, 305, 705)]


def test_train_tells_accuracy_saves_and_says_how_to_predict(capsys, tmp_path):
    path = tmp_path / "digits.safetensors"
    code, out, err = run(
        capsys, "train", "--limit", 300, "--epochs", 2, "--batch-size", 32, "--model", "lenet5", "--output", path
    )
    assert code == 0
    assert re.search(r"data: mnist5k, 300 images of 1 x 28 x 28 to train on, 300 held out, 10 classes", out)
    assert "model: lenet5, 61,706 parameters" in out
    assert re.search(r"accuracy on 300 held-out images: \d+\.\d+ %", out)
    assert f"saved {path}" in out
    assert f"pycnn predict {path} image.png" in out
    assert "epoch 2/2" in err and "images/s" in err and "accuracy=" in err
    known = json.loads(read_metadata(path)["classifier"])
    assert known["model"] == "lenet5"
    assert known["classes"] == list("0123456789")
    assert known["shape"] == [1, 28, 28]
    assert known["mean"][0] == pytest.approx(0.13, abs=0.02)
    assert known["background"] == pytest.approx(0.0, abs=0.01)


def test_train_without_progress_prints_a_line_an_epoch(capsys, tmp_path):
    arguments = ("train", "--limit", 60, "--epochs", 2, "--output", tmp_path / "a.safetensors", "--no-progress")
    code, out, err = run(capsys, *arguments)
    assert code == 0 and err == ""
    assert re.findall(r"^epoch (\d)/2: loss \d", out, re.MULTILINE) == ["1", "2"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_the_seed_decides_what_is_saved(capsys, tmp_path, optimizer):
    paths = [tmp_path / f"{name}.safetensors" for name in ("first", "again", "other")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        arguments = ("--limit", 40, "--epochs", 1, "--optimizer", optimizer, "--seed", seed, "--no-progress")
        assert run(capsys, "train", *arguments, "--output", path)[0] == 0
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again != other


def test_predict_answers_with_class_and_probability(capsys, trained, digits):
    paths, classes = digits
    code, out, _ = run(capsys, "predict", trained, *paths)
    assert code == 0
    lines = out.splitlines()
    found = [re.fullmatch(r"(.+): (\d), probability ([01]\.\d{4})", line).groups() for line in lines]
    assert [path for path, _, _ in found] == [str(path) for path in paths]
    assert sum(got == want for (_, got, _), want in zip(found, classes, strict=True)) >= 3
    assert all(0.1 <= float(probability) <= 1 for _, _, probability in found)


def test_ink_on_paper_is_inverted(capsys, trained, digits, tmp_path):
    paths, _ = digits
    plain = run(capsys, "predict", trained, *paths)[1].splitlines()
    inverted = []
    for path in paths:
        image = tmp_path / f"paper-{path.name}"
        # Larger, in colour, and dark on bright.
        pixels = 255 - np.kron(np.array(Image.open(path)), np.ones((4, 4), np.uint8))
        Image.fromarray(np.stack([pixels] * 3, -1)).save(image)
        inverted.append(image)
    found = run(capsys, "predict", trained, *inverted)[1].splitlines()
    for want, got in zip(plain, found, strict=True):
        assert got.endswith(" (inverted)")
        assert got.split(": ")[1].split(",")[0] == want.split(": ")[1].split(",")[0]
    for mode, count in (("never", 0), ("always", len(paths))):
        assert run(capsys, "predict", trained, "--invert", mode, *inverted)[1].count("(inverted)") == count


def test_eval_finds_the_same_accuracy(capsys, trained):
    code, out, _ = run(capsys, "eval", trained, "--data", "mnist5k")
    assert code == 0
    accuracy = float(re.search(r"accuracy: (\d+\.\d+) %", out)[1])
    assert accuracy > 85
    assert "images: 1,000 held out of mnist5k" in out
    assert re.search(r"loss: \d\.\d{4}", out)


def folder_of_colours(root, count, size=(20, 30)):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
            pixels[..., 2 - label] += 120
            Image.fromarray(pixels).save(root / name / f"{i}.png")


@pytest.mark.parametrize("parts", [None, ("train", "test"), ("train", "val")])
def test_image_folders(capsys, tmp_path, parts):
    root = tmp_path / "photos"
    for part in parts or [""]:
        folder_of_colours(root / part, 20)
    path = tmp_path / "colours.safetensors"
    arguments = ("--data", root, "--image-size", 16, "--epochs", 4, "--batch-size", 8, "--no-progress")
    code, out, err = run(capsys, "train", *arguments, "--output", path)
    assert code == 0, err
    assert "images of 3 x 16 x 16" in out and "3 classes" in out
    code, out, err = run(capsys, "predict", path, *((root / (parts or [""])[0]).glob("*/0.png")))
    assert code == 0, err
    answers = dict(re.findall(r"(\w+)/0.png: (\w+), probability", out))
    assert answers == {name: name for name in ("blue", "green", "red")}
    code, out, err = run(capsys, "eval", path, "--data", root)
    assert code == 0, err
    assert "accuracy: 100.00 %" in out


def test_mnist_folder(capsys, tmp_path):
    train, test = data.mnist5k()
    for name, part in (("train", train[::100]), ("t10k", test[::50])):
        data.write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", part.x[:, 0])
        data.write_idx(tmp_path / f"{name}-labels-idx1-ubyte", part.y.astype(np.uint8))
    arguments = ("--data", tmp_path, "--epochs", 1, "--no-progress", "--output", tmp_path / "a.safetensors")
    code, out, err = run(capsys, "train", *arguments)
    assert code == 0, err
    assert "40 images of 1 x 28 x 28 to train on, 20 held out" in out


def test_cifar_folder(capsys, tmp_path):
    for part in ("train", "test"):
        for name in data.cifar.CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.full((32, 32, 3), len(name), np.uint8)).save(tmp_path / part / name / "0.png")
    arguments = ("--data", tmp_path, "--epochs", 1, "--no-progress", "--output", tmp_path / "a.safetensors")
    code, out, err = run(capsys, "train", *arguments)
    assert code == 0, err
    assert "10 images of 3 x 32 x 32 to train on, 10 held out, 10 classes" in out


def test_interruption_saves_what_there_is(capsys, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pycnn.Trainer, "_update", interrupted)
    path = tmp_path / "a.safetensors"
    code, out, _ = run(capsys, "train", "--limit", 40, "--epochs", 1, "--no-progress", "--output", path)
    assert code == 130
    assert "interrupted" in out
    assert path.is_file()


def test_summary_of_a_name_and_of_a_file(capsys, trained):
    code, out, _ = run(capsys, "summary", "lenet5")
    assert code == 0 and "parameters: 61,706" in out
    code, out, _ = run(capsys, "summary", "digits_cnn", "--input-shape", "3,32,32", "--num-classes", 7)
    assert code == 0 and "(1, 7)" in out and "(1, 32, 32, 32)" in out
    code, out, _ = run(capsys, "summary", "mobilenet_v2")
    assert code == 0 and "parameters: 3,504,872" in out and "MACs per image: 300,774,272" in out
    code, out, _ = run(capsys, "summary", trained)
    assert code == 0 and out.startswith("LeNet5")


def test_info_says_what_runs(capsys):
    code, out, _ = run(capsys, "info")
    found = pycnn.cpu_info()
    assert code == 0
    for word in (found["version"], found["isa"], np.__version__, f"threads: {found['num_threads']}"):
        assert word in out


def test_threads(capsys):
    threads = pycnn.get_num_threads()
    try:
        assert run(capsys, "train", "--threads", 3, "--data", "/absent")[0] == 2
        assert pycnn.get_num_threads() == 3
    finally:
        pycnn.set_num_threads(threads)


def test_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("train", "eval", "predict", "summary", "bench", "convert", "info"):
        assert re.search(rf"^  +{command} ", out, re.MULTILINE)
        code, text, _ = run(capsys, command, "--help")
        assert code == 0 and f"pycnn {command}" in text
    assert run(capsys, "--version")[1] == f"pycnn {pycnn.__version__}\n"


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "pycnn"]  # which would find the checkout's pycnn/ in the current folder

    def program(*args):
        return subprocess.run([*command, *args], capture_output=True, text=True, cwd=tmp_path)

    done = program("info")
    assert done.returncode == 0 and done.stdout.startswith(f"pycnn {pycnn.__version__}")
    done = program("predict", "absent.safetensors", "a.png")
    assert done.returncode == 2
    assert done.stderr.startswith("pycnn: error: ") and "Traceback" not in done.stderr


def plain_file(tmp_path):
    path = tmp_path / "plain.safetensors"
    pycnn.save(nn.Linear(2, 2), path)
    return path


def described(tmp_path, **changes):
    known = {
        "model": "lenet5",
        "classes": ["0", "1"],
        "shape": [1, 28, 28],
        "mean": [0.1],
        "std": [0.3],
        "background": 0.0,
    }
    path = tmp_path / "described.safetensors"
    pycnn.save(pycnn.models.lenet5(num_classes=2), path, {"classifier": json.dumps(known | changes)})
    return path


# arguments, given the folder and a trained file; words of the message
ERRORS = {
    "no command": (lambda t, f: [], ["COMMAND"]),
    "no such command": (lambda t, f: ["bake"], ["bake"]),
    "no such data": (lambda t, f: ["train", "--data", t / "absent"], ["--data", "absent", "mnist5k"]),
    "no images": (lambda t, f: ["train", "--data", t], ["class folders"]),
    "no such model": (lambda t, f: ["train", "--model", "alexnet"], ["alexnet", "lenet5", "digits_cnn"]),
    "no such optimizer": (lambda t, f: ["train", "--optimizer", "adagrad"], ["--optimizer", "adagrad", "adamw"]),
    "no epochs": (lambda t, f: ["train", "--epochs", 0], ["--epochs", "0"]),
    "rate": (lambda t, f: ["train", "--limit", 9, "--lr", -1, "--output", t / "a.safetensors"], ["lr", "-1"]),
    "ending": (lambda t, f: ["train", "--output", t / "a.pth"], ["path", "a.pth", ".safetensors"]),
    "no folder": (lambda t, f: ["train", "--output", t / "absent/a.safetensors"], ["--output", "absent"]),
    "no file": (lambda t, f: ["predict", t / "absent.safetensors", "a.png"], ["absent.safetensors"]),
    "no image": (lambda t, f: ["predict", f, t / "absent.png"], ["absent.png"]),
    "not an image": (lambda t, f: ["predict", f, __file__], ["test_cli.py", "not an image"]),
    "weights alone": (lambda t, f: ["predict", plain_file(t), "a.png"], ["plain.safetensors", "pycnn train"]),
    "other weights": (lambda t, f: ["predict", described(t, model="digits_cnn"), "a.png"], ["state_dict", "missing"]),
    "other classes": (lambda t, f: ["eval", described(t)], ["--data", "classes"]),
    "size": (lambda t, f: ["predict", described(t, shape=[1, 10**9, 28]), "a.png"], ["damaged"]),
    "channels": (lambda t, f: ["predict", described(t, shape=[2, 28, 28]), "a.png"], ["damaged"]),
    "class names": (lambda t, f: ["predict", described(t, classes=7), "a.png"], ["damaged"]),
    "more than there is": (lambda t, f: ["predict", described(t, extra=1), "a.png"], ["damaged", "extra"]),
    "shape": (lambda t, f: ["summary", "lenet5", "--input-shape", "28"], ["--input-shape", "28"]),
    "shape that does not fit": (lambda t, f: ["summary", "lenet5", "--input-shape", "1,32,32"], ["(1, 1, 32, 32)"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_and_exit_code_2(capsys, tmp_path, trained, name):
    make, words = ERRORS[name]
    code, _, err = run(capsys, *make(tmp_path, trained))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert re.match(r"pycnn( \w+)?: error: ", last)
    for word in words:
        assert word in last


def test_without_pillow_it_says_what_to_install(capsys, trained, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    code, _, err = run(capsys, "predict", trained, digits[0][0])
    assert code == 2
    assert "pip install pycnn[image]" in err
