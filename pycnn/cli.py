"""The command line: pycnn train | eval | predict | summary | bench | convert | info."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pycnn

if TYPE_CHECKING:
    from pycnn import data, optim

_METADATA = "classifier"  # under this name the file's header holds what `predict` needs, as JSON
_LARGEST_SIDE = 4096  # of images, in pixels: more than that is no classifier's input
_BATCH = 64
_RATES = {"adamw": 3e-3, "adam": 3e-3, "sgd": 0.05, "rmsprop": 1e-3}  # peaks of the one-cycle schedule


@dataclasses.dataclass
class Classifier:
    """What a model file says of itself: enough to build the network and to prepare images for it."""

    model: str
    classes: list[str]
    shape: list[int]
    mean: list[float]
    std: list[float]
    background: float | None

    def build(self) -> Any:
        from pycnn import models

        return models.create(self.model, num_classes=len(self.classes), in_channels=self.shape[0])

    def normalize(self) -> data.Normalize:
        from pycnn.data import Normalize

        return Normalize(self.mean, self.std)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected at least 1")
    return number


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected sizes as 1,28,28") from None
    if len(sizes) not in (3, 4) or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected channels, height and width, as 1,28,28")
    return sizes


def _parser() -> argparse.ArgumentParser:
    from pycnn import models

    networks = ", ".join(models.names())
    parser = argparse.ArgumentParser(prog="pycnn", description="Convolutional networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"pycnn {pycnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    source = (
        "'mnist5k', the 5,000 digits that come with pycnn (default); or a folder: with MNIST's IDX files, CIFAR-10's "
        "binary batches, train/CLASS/ and test/CLASS/ images, or CLASS/ images, a fifth of which is held out"
    )

    def add(name: str, run: Any, text: str, details: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text} {details}".strip())
        command.set_defaults(run=run)
        return command

    def add_threads(command: argparse.ArgumentParser) -> None:
        command.add_argument("--threads", type=_positive, metavar="N", help="threads; results do not depend on them")

    train = add("train", _train, "Train a network and save it.")
    train.add_argument("--data", default="mnist5k", metavar="NAME", help=source)
    train.add_argument("--model", default="digits_cnn", metavar="NAME", help=f"{networks}; default: digits_cnn")
    train.add_argument(
        "--epochs", type=_positive, metavar="N", help="default: 8 for mnist5k, 5 for MNIST, 10 otherwise"
    )
    train.add_argument("--batch-size", type=_positive, default=_BATCH, metavar="N", help=f"default: {_BATCH}")
    train.add_argument("--lr", type=float, metavar="RATE", help="the highest learning rate; default: by optimizer")
    train.add_argument("--optimizer", choices=sorted(_RATES), default="adamw", help="default: adamw")
    train.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights, order and augmentation; default: 0"
    )
    train.add_argument(
        "--image-size", type=_positive, metavar="N", help="side of images from image folders; default: 32"
    )
    train.add_argument("--limit", type=_positive, metavar="N", help="use at most N images, to try things out")
    train.add_argument("--output", default="model.safetensors", metavar="FILE", help="default: model.safetensors")
    train.add_argument("--no-progress", action="store_true", help="a line an epoch in place of the progress bar")
    add_threads(train)

    evaluate = add("eval", _evaluate, "Loss and accuracy of a saved network on held-out data.")
    evaluate.add_argument("file", help="what `pycnn train` saved")
    evaluate.add_argument("--data", default="mnist5k", metavar="NAME", help=source)
    evaluate.add_argument("--limit", type=_positive, metavar="N", help="use at most N images")
    add_threads(evaluate)

    predict = add(
        "predict",
        _predict,
        "Class and probability of images.",
        "An image is brought to the size and colours of those that the network was trained on: scaled to cover, and "
        "cropped about the centre. A network trained on bright digits before a dark ground wants such digits, one an "
        "image and about as large in it; by default an image whose border is nearer to the opposite brightness, as of "
        "ink on paper, is inverted, which the answer then says. Needs Pillow: pip install pycnn[image].",
    )
    predict.add_argument("file", help="what `pycnn train` saved")
    predict.add_argument("images", nargs="+", metavar="image", help="PNG, JPEG or whatever Pillow reads")
    predict.add_argument(
        "--invert",
        choices=("auto", "always", "never"),
        default="auto",
        help="exchange dark and bright; auto (default): grey images whose border asks for it",
    )
    add_threads(predict)

    summarize = add("summary", _summarize, "Layers, shapes, parameters and MACs of a network.")
    summarize.add_argument("model", help=f"{networks}, or a file that `pycnn train` saved")
    summarize.add_argument("--input-shape", type=_shape, metavar="C,H,W", help="default: what the network was made for")
    summarize.add_argument("--num-classes", type=_positive, metavar="N", help="default: the network's own")

    from pycnn import bench

    bench.add_arguments(add("bench", bench.run, "Speed of the engine beside the libraries that are installed."))

    from pycnn import _cli_convert

    convert = add("convert", _convert, "Weights or a network from one kind of file to another.", _cli_convert.DETAILS)
    _cli_convert.add_arguments(convert, _shape, _positive)

    add("info", _info, "Versions, and what of this machine pycnn uses.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, 2 after an error, 130 after an interruption."""
    args = _parser().parse_args(arguments)
    try:
        if getattr(args, "threads", None):
            pycnn.set_num_threads(args.threads)
        code: int = args.run(args)
        return code
    except KeyboardInterrupt:
        print("pycnn: interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"pycnn: error: {error}", file=sys.stderr)
        return 2


# ---- train -----------------------------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> int:
    from pycnn import _cli_data, losses
    from pycnn.callbacks import Callback
    from pycnn.data import Compose, DataLoader
    from pycnn.optim.lr_scheduler import OneCycleLR
    from pycnn.serialization import check_path, save

    output = check_path(args.output)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {output.parent}")
    source = _cli_data.load(args.data, args.image_size, args.limit)
    found = _cli_data.measure(source.train)
    known = Classifier(args.model, list(source.classes), list(found.shape), found.mean, found.std, found.background)
    pycnn.manual_seed(args.seed)
    model = known.build()
    print(_versions())
    print(
        f"data: {source.name}, {len(source.train):,} images of {_times(found.shape)} to train on, "
        f"{len(source.test):,} held out, {len(source.classes)} classes"
    )
    print(f"model: {args.model}, {model.num_parameters:,} parameters", flush=True)

    normalize = known.normalize()
    batches = DataLoader(
        source.train, args.batch_size, True, Compose([*source.augmentation, normalize]), seed=args.seed
    )
    held_out = DataLoader(source.test, _BATCH, transform=normalize)
    epochs = args.epochs or source.epochs
    optimizer = _optimizer(args, model)
    schedule = OneCycleLR(optimizer, optimizer.lr, epochs=epochs, steps_per_epoch=max(1, len(batches)))
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer, scheduler=schedule)

    class Lines(Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, logs: dict[str, float]) -> None:
            words = ", ".join(f"{name} {value:.4f}" for name, value in logs.items() if not name.startswith("sec"))
            print(f"epoch {epoch}/{epochs}: {words}", flush=True)

    start = time.perf_counter()
    code = 0
    try:
        trainer.fit(
            batches,
            epochs=epochs,
            validation_data=held_out,
            callbacks=[Lines()] if args.no_progress else [],
            progress=not args.no_progress,
            seed=args.seed,
        )
    except KeyboardInterrupt:
        print("interrupted: saving what is trained so far")
        code = 130
    print(f"trained for {time.perf_counter() - start:.1f} s")
    accuracy = trainer.evaluate(held_out)["accuracy"]
    print(f"accuracy on {len(source.test):,} held-out images: {100 * accuracy:.2f} %")
    save(model, output, {_METADATA: json.dumps(dataclasses.asdict(known))})
    print(f"saved {output}")
    print(f"to predict: pycnn predict {output} image.png")
    return code


def _optimizer(args: argparse.Namespace, model: Any) -> optim.Optimizer:
    from pycnn import optim

    rate = _RATES[args.optimizer] if args.lr is None else args.lr
    if args.optimizer == "sgd":
        return optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    if args.optimizer == "rmsprop":
        return optim.RMSprop(model.parameters(), rate, momentum=0.9)
    kind = optim.AdamW if args.optimizer == "adamw" else optim.Adam
    return kind(model.parameters(), rate)


# ---- what was saved --------------------------------------------------------------------------------------------------


def _load(path: str) -> tuple[Any, Classifier]:
    """The network in a file of `pycnn train`, in evaluation mode."""
    from pycnn.serialization import load_weights, read_metadata

    text = read_metadata(path).get(_METADATA)
    if text is None:
        raise pycnn.FormatError(f"{path}: says nothing about its network; expected a file that `pycnn train` saved")
    known = _read_classifier(path, text)
    model = known.build()
    load_weights(model, path)
    model.eval()
    return model, known


def _read_classifier(path: str, text: str) -> Classifier:
    try:
        known = Classifier(**json.loads(text))
        sound = (
            isinstance(known.model, str)
            and isinstance(known.classes, list)
            and all(isinstance(name, str) for name in known.classes)
            and len(known.shape) == 3
            and all(isinstance(size, int) and 1 <= size <= _LARGEST_SIDE for size in known.shape)
            and known.shape[0] in (1, 3)
            and len(known.mean) == len(known.std) == known.shape[0]
            and (known.background is None or 0 <= known.background <= 1)
        )
    except (TypeError, ValueError) as error:
        raise pycnn.FormatError(f"{path}: damaged description of its network: {error}") from error
    if not sound or not known.classes:
        raise pycnn.FormatError(f"{path}: damaged description of its network: {text[:200]}")
    return known


def _evaluate(args: argparse.Namespace) -> int:
    from pycnn import _cli_data, losses, optim
    from pycnn.data import DataLoader

    model, known = _load(args.file)
    source = _cli_data.load(args.data, known.shape[1], args.limit)
    if list(source.classes) != known.classes:
        raise ValueError(f"--data: got classes {', '.join(source.classes)}, expected {', '.join(known.classes)}")
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.0))
    found = trainer.evaluate(DataLoader(source.test, _BATCH, transform=known.normalize()))
    print(f"images: {len(source.test):,} held out of {source.name}")
    print(f"loss: {found['loss']:.4f}")
    print(f"accuracy: {100 * found['accuracy']:.2f} %")
    return 0


def _predict(args: argparse.Namespace) -> int:
    from pycnn import functional as F
    from pycnn.data import read_image

    model, known = _load(args.file)
    channels, height, width = known.shape
    normalize = known.normalize()
    for first in range(0, len(args.images), _BATCH):
        paths = args.images[first : first + _BATCH]
        images = np.stack([read_image(path, (height, width), "L" if channels == 1 else "RGB") for path in paths])
        inverted = np.array([_is_inverted(image, known.background, args.invert) for image in images])
        images[inverted] = 255 - images[inverted]
        probabilities = F.softmax(model(normalize(images)), 1)
        for path, row, turned in zip(paths, probabilities, inverted, strict=True):
            best = int(row.argmax())
            note = " (inverted)" if turned else ""
            print(f"{path}: {known.classes[best]}, probability {row[best]:.4f}{note}")
    return 0


def _is_inverted(image: Any, background: float | None, mode: str) -> bool:
    from pycnn._cli_data import border_of

    if mode != "auto" or background is None:
        return mode == "always"
    border = float(border_of(image).mean()) / 255
    return abs(1 - border - background) < abs(border - background)


# ---- the rest --------------------------------------------------------------------------------------------------------


def _summarize(args: argparse.Namespace) -> int:
    from pycnn import models

    if Path(args.model).suffix == ".safetensors":
        model, known = _load(args.model)
        shape = args.input_shape or tuple(known.shape)
    else:
        shape = args.input_shape or models.input_shape(args.model)
        classes = {} if args.num_classes is None else {"num_classes": args.num_classes}
        model = models.create(args.model, in_channels=shape[-3], **classes)
    print(pycnn.summary(model, shape))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from pycnn import _cli_convert

    def load(path: str) -> tuple[Any, list[int]]:
        model, known = _load(path)
        return model, known.shape

    return _cli_convert.run(args, load)


def _info(args: argparse.Namespace) -> int:
    import safetensors

    found = pycnn.cpu_info()
    print(f"pycnn {found['version']}")
    print(f"kernels: {found['isa']} (this build and CPU have {', '.join(found['available_isas'])})")
    print(f"threads: {found['num_threads']} ({found['thread_backend']})")
    print(f"python {platform.python_version()}, numpy {np.__version__}, safetensors {safetensors.__version__}")
    print(f"platform: {platform.platform()}")
    return 0


def _versions() -> str:
    found = pycnn.cpu_info()
    return f"pycnn {found['version']}: {found['isa']} kernels, {found['num_threads']} threads"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
