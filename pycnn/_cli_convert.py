"""`pycnn convert`: weights and networks from one kind of file to another."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycnn.nn import Module
from pycnn.parameter import Array
from pycnn.serialization import PYTORCH_SUFFIXES, load_weights, read_metadata, read_tensors, write_tensors

_WEIGHTS = (".safetensors", *PYTORCH_SUFFIXES)

DETAILS = (
    "By the endings of the names: .onnx to .safetensors takes the weights out; .pth or .pt, a state dict that "
    "torch.save wrote, to .safetensors the same; .safetensors, .pth or .pt to .onnx needs a network for the weights, "
    "which a file that `pycnn train` saved knows and --model names for others. With --model, weights must fit that "
    "network in any case. ONNX needs the onnx package: pip install pycnn[onnx]."
)


def add_arguments(
    command: argparse.ArgumentParser, shape: Callable[[str], Any], positive: Callable[[str], int]
) -> None:
    command.add_argument("source", metavar="SOURCE", help="a file ending in .onnx, .safetensors, .pth or .pt")
    command.add_argument("target", metavar="TARGET", help="the file to write, ending in .safetensors or .onnx")
    command.add_argument("--model", metavar="NAME", help="the network that the weights are for, as resnet18")
    command.add_argument("--num-classes", type=positive, metavar="N", help="of --model; default: its own")
    command.add_argument("--in-channels", type=positive, metavar="N", help="of --model; default: its own")
    command.add_argument("--input-shape", type=shape, metavar="C,H,W", help="for ONNX; default: the network's")


def run(args: argparse.Namespace, load: Callable[[str], tuple[Module, Sequence[int]]]) -> int:
    """Converts args.source to args.target; `load` opens what `pycnn train` saved: (network, shape of its images)."""
    source, target = Path(args.source).suffix, Path(args.target).suffix
    if target == ".safetensors" and source in (".onnx", *PYTORCH_SUFFIXES):
        tensors = _tensors(args.source)
        if args.model is not None:
            model, _ = _network(args)
            model.load_state_dict(tensors)
            tensors = model.state_dict()
        write_tensors(tensors, args.target)
        print(f"saved {args.target}: {len(tensors)} tensors")
        return 0
    if target == ".onnx" and source in _WEIGHTS:
        from pycnn import onnx

        if args.model is not None:
            model, image = _network(args)
            load_weights(model, args.source)
        elif source == ".safetensors" and "classifier" in read_metadata(args.source):
            model, shape = load(args.source)
            image = tuple(shape)
        else:
            raise ValueError(f"--model: {args.source} does not say what network its weights are for; expected a name")
        size = tuple(args.input_shape or image)[-3:]
        onnx.save(model, args.target, (1, *size))
        print(f"saved {args.target}: {model.num_parameters:,} parameters, for images of {' x '.join(map(str, size))}")
        return 0
    raise ValueError(
        f"SOURCE, TARGET: got {args.source} and {args.target}, expected .onnx, .pth or .pt to .safetensors, or "
        ".safetensors, .pth or .pt to .onnx"
    )


def _tensors(source: str) -> dict[str, Array]:
    if Path(source).suffix != ".onnx":
        return read_tensors(source)
    from pycnn import onnx

    return onnx.load(source).state_dict()


def _network(args: argparse.Namespace) -> tuple[Module, tuple[int, ...]]:
    """The network that --model names, and the shape of the images that it was made for."""
    from pycnn import models

    given = {"num_classes": args.num_classes, "in_channels": args.in_channels}
    model = models.create(args.model, **{name: number for name, number in given.items() if number is not None})
    channels, *size = models.input_shape(args.model)
    return model, (args.in_channels or channels, *size)
