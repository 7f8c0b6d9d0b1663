"""The work that is measured: which operations on which shapes, with the flops and bytes that each costs.

Shapes are those of ResNet-50, VGG, MobileNetV2 and V3, and of the small networks for CIFAR-10 and MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

FORWARD, BACKWARD, STEP = "forward", "backward", "step"
BACKWARD_DATA, BACKWARD_WEIGHTS = "backward-data", "backward-weights"


@dataclass(frozen=True)
class Case:
    """One operation on one shape, in one direction, on so many threads.

    flops: multiplications and additions of the plain algorithm, 0 where memory is what counts.
    bytes: what has to move between memory and caches if nothing stays in the caches from one call to the next: each
        pass over a tensor that the mathematics demands, reading and writing both counted.
    """

    suite: str
    group: str
    name: str
    op: str
    direction: str
    shape: tuple[int, ...]
    flops: float = 0.0
    bytes: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    @property
    def title(self) -> str:
        return f"{self.suite}: {self.group}: {self.name}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, text: dict[str, Any]) -> Case:
        return cls(**{**text, "shape": tuple(text["shape"])})


@dataclass(frozen=True)
class Family:
    """Cases that pycnn runs against each other: how fast are the others, measured by the first?"""

    suite: str
    group: str
    name: str
    cases: tuple[Case, ...]
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.suite}: {self.group}: {self.name}"


# ---- convolution -----------------------------------------------------------------------------------------------------

# (ic, size, oc, kernel, stride, groups), each shape of the network once.
Geometry = tuple[int, int, int, int, int, int]

RESNET50: tuple[Geometry, ...] = (
    (3, 224, 64, 7, 2, 1),
    (64, 56, 64, 1, 1, 1),
    (64, 56, 64, 3, 1, 1),
    (64, 56, 256, 1, 1, 1),
    (256, 56, 64, 1, 1, 1),
    (256, 56, 128, 1, 1, 1),
    (128, 56, 128, 3, 2, 1),
    (128, 28, 512, 1, 1, 1),
    (256, 56, 512, 1, 2, 1),
    (512, 28, 128, 1, 1, 1),
    (128, 28, 128, 3, 1, 1),
    (512, 28, 256, 1, 1, 1),
    (256, 28, 256, 3, 2, 1),
    (256, 14, 1024, 1, 1, 1),
    (512, 28, 1024, 1, 2, 1),
    (1024, 14, 256, 1, 1, 1),
    (256, 14, 256, 3, 1, 1),
    (1024, 14, 512, 1, 1, 1),
    (512, 14, 512, 3, 2, 1),
    (512, 7, 2048, 1, 1, 1),
    (1024, 14, 2048, 1, 2, 1),
    (2048, 7, 512, 1, 1, 1),
    (512, 7, 512, 3, 1, 1),
)
VGG: tuple[Geometry, ...] = (
    (3, 224, 64, 3, 1, 1),
    (64, 224, 64, 3, 1, 1),
    (64, 112, 128, 3, 1, 1),
    (128, 112, 128, 3, 1, 1),
    (128, 56, 256, 3, 1, 1),
    (256, 56, 256, 3, 1, 1),
    (256, 28, 512, 3, 1, 1),
    (512, 28, 512, 3, 1, 1),
    (512, 14, 512, 3, 1, 1),
)
MOBILENET: tuple[Geometry, ...] = (
    (3, 224, 32, 3, 2, 1),
    (32, 112, 32, 3, 1, 32),
    (32, 112, 16, 1, 1, 1),
    (16, 112, 96, 1, 1, 1),
    (96, 112, 96, 3, 2, 96),
    (96, 56, 24, 1, 1, 1),
    (24, 56, 144, 1, 1, 1),
    (144, 56, 144, 3, 1, 144),
    (144, 56, 144, 3, 2, 144),
    (144, 28, 32, 1, 1, 1),
    (32, 28, 192, 1, 1, 1),
    (192, 28, 192, 3, 1, 192),
    (192, 28, 192, 3, 2, 192),
    (192, 14, 64, 1, 1, 1),
    (64, 14, 384, 1, 1, 1),
    (384, 14, 384, 3, 1, 384),
    (384, 14, 96, 1, 1, 1),
    (96, 14, 576, 1, 1, 1),
    (576, 14, 576, 3, 1, 576),
    (576, 14, 576, 3, 2, 576),
    (576, 7, 160, 1, 1, 1),
    (160, 7, 960, 1, 1, 1),
    (960, 7, 960, 3, 1, 960),
    (960, 7, 320, 1, 1, 1),
    (320, 7, 1280, 1, 1, 1),
    (72, 56, 72, 5, 2, 72),  # from here on the 5x5 of MobileNetV3
    (120, 28, 120, 5, 1, 120),
    (672, 14, 672, 5, 2, 672),
    (960, 7, 960, 5, 1, 960),
)
SMALL: tuple[Geometry, ...] = (
    (3, 32, 16, 3, 1, 1),
    (16, 32, 16, 3, 1, 1),
    (16, 32, 32, 3, 2, 1),
    (32, 16, 32, 3, 1, 1),
    (32, 16, 64, 3, 2, 1),
    (64, 8, 64, 3, 1, 1),
    (1, 28, 32, 3, 1, 1),
    (32, 14, 64, 3, 1, 1),
    (1, 28, 6, 5, 1, 1),
    (6, 14, 16, 5, 1, 1),
)

CONV_DIRECTIONS = (FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS)


def conv_case(geometry: Geometry, n: int, direction: str, suite: str = "conv", small: bool = False) -> Case:
    ic, size, oc, kernel, stride, groups = geometry
    padding = kernel // 2
    out = (size + 2 * padding - kernel) // stride + 1
    elements = n * (ic * size * size + oc * out * out) + oc * ic // groups * kernel * kernel
    short = direction if direction == FORWARD else BACKWARD
    if small:
        group = f"small {direction}"
    elif ic <= 4:
        group = f"stem {direction}"
    elif groups > 1:
        group = f"depthwise {short}"
    elif kernel == 1:
        group = f"1x1 {short}"
    else:
        group = f"{kernel}x{kernel} s{stride} {direction}"
    name = f"{ic}-{oc} {kernel}x{kernel} s{stride} {size}x{size} n{n}"
    return Case(
        suite=suite,
        group=group,
        name=name if group.endswith(direction) else f"{name} {direction.removeprefix('backward-')}",
        op="conv",
        direction=direction,
        shape=(n, ic, size, size),
        flops=2.0 * n * oc * out * out * (ic // groups) * kernel * kernel,
        bytes=4.0 * elements,
        options={"oc": oc, "kernel": kernel, "stride": stride, "padding": padding, "groups": groups},
    )


def conv_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    networks = ((RESNET50, (1, 16), False), (VGG, (1, 16), False), (MOBILENET, (1, 16), False), (SMALL, (1, 128), True))
    for direction in CONV_DIRECTIONS:
        for geometries, default, small in networks:
            for n in batches or default:
                for geometry in geometries:
                    if direction == BACKWARD_DATA and geometry[0] <= 4:
                        continue  # nobody wants the gradient of an image
                    yield conv_case(geometry, n, direction, small=small)


# ---- normalization, activation, pooling, update ----------------------------------------------------------------------


def memory_case(
    suite: str, group: str, op: str, direction: str, shape: tuple[int, ...], passes: float, **options: Any
) -> Case:
    """passes: over a tensor of the source's size, reading and writing both counted."""
    name = "x".join(map(str, shape[1:])) + f" n{shape[0]}"
    kind = options.get("kind")
    return Case(
        suite=suite,
        group=group,
        name=f"{kind} {name}" if kind else name,
        op=op,
        direction=direction,
        shape=shape,
        bytes=4.0 * passes * math.prod(shape),
        options=options,
    )


IMAGES = ((64, 112, 112), (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
TOKENS = ((3136, 96), (197, 768))  # of ConvNeXt and of a vision transformer


def norm_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    """Statistics of a whole batch want a pass of their own over the source (and, backward, over its gradient too);
    those of one sample are taken while the sample is in the caches."""
    for n in batches or (16,):
        for direction, batch_passes, sample_passes in ((FORWARD, 3, 2), (BACKWARD, 5, 3)):
            for shape in IMAGES:
                group = f"BatchNorm training {direction}"
                yield memory_case("norm", group, "batch_norm", direction, (n, *shape), batch_passes)
            for shape in IMAGES:
                group = f"BatchNorm+ReLU training {direction}"
                yield memory_case("norm", group, "batch_norm_relu", direction, (n, *shape), batch_passes)
            for shape in IMAGES[1:4]:
                yield memory_case(
                    "norm", f"GroupNorm {direction}", "group_norm", direction, (n, *shape), sample_passes, groups=32
                )
            for shape in IMAGES[1:4]:
                yield memory_case(
                    "norm", f"InstanceNorm {direction}", "instance_norm", direction, (n, *shape), sample_passes
                )
            for tokens in TOKENS:
                yield memory_case(
                    "norm", f"LayerNorm {direction}", "layer_norm", direction, (n, *tokens), sample_passes
                )


PLAIN = ("relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid")
TRANSCENDENTAL = ("sigmoid", "tanh", "silu", "gelu", "elu", "softplus", "mish")


def act_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    for direction, passes in ((FORWARD, 2), (BACKWARD, 3)):
        for kinds, group in ((PLAIN, "activation"), (TRANSCENDENTAL, "transcendental activation")):
            for n in batches or (1, 16):
                for kind in kinds:
                    shape = (n, 256, 56, 56)
                    yield memory_case("act", f"{group} {direction}", "activation", direction, shape, passes, kind=kind)
        for n in batches or (128,):
            yield memory_case("act", f"softmax {direction}", "softmax", direction, (n, 1000), passes)


def pool_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    windows = (((64, 112, 112), 3, 2, 1), ((64, 224, 224), 2, 2, 0), ((512, 28, 28), 2, 2, 0), ((32, 28, 28), 2, 2, 0))
    for direction in (FORWARD, BACKWARD):
        for n in batches or (1, 16):
            for shape, kernel, stride, padding in windows:
                case = memory_case(
                    "pool",
                    f"max pooling {direction}",
                    "max_pool",
                    direction,
                    (n, *shape),
                    1 + 1 / stride**2,
                    kind=f"{kernel}x{kernel} s{stride}",
                    kernel=kernel,
                    stride=stride,
                    padding=padding,
                )
                yield case
            shape = (2048, 7, 7)
            yield memory_case(
                "pool", f"global average pooling {direction}", "global_avg_pool", direction, (n, *shape), 1 + 1 / 49
            )


def update_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    """Parameters of ResNet-50, ResNet-18 and ResNet-20 for CIFAR in one flat tensor; batches mean nothing here."""
    for op, title, passes in (("sgd", "SGD momentum update", 5), ("adam", "Adam update", 7)):
        for count in (25_557_032, 11_689_512, 272_474):
            case = memory_case("update", title, op, STEP, (count,), passes)
            yield replace(case, name=f"{count:,} parameters")


# ---- networks --------------------------------------------------------------------------------------------------------

# Name, shape of an image, multiply-accumulates of an image, batches of inference, batches of training.
NETWORKS: tuple[tuple[str, tuple[int, int, int], float, tuple[int, ...], tuple[int, ...]], ...] = (
    ("resnet18", (3, 224, 224), 1.814e9, (1, 16), (16,)),
    ("resnet50", (3, 224, 224), 4.089e9, (1,), (8,)),
    ("mobilenet_v2", (3, 224, 224), 0.301e9, (1, 16), (16,)),
    ("vgg11_bn", (3, 224, 224), 7.609e9, (1,), ()),
    ("resnet20_cifar", (3, 32, 32), 0.0406e9, (1,), (128,)),
    ("mnist_cnn", (1, 28, 28), 0.0120e9, (1,), (128,)),
)


def net_cases(batches: Iterable[int] | None) -> Iterator[Case]:
    """Inference with constant weights, and training steps (forward, loss, backward, SGD with momentum and weight
    decay), which count as three passes."""
    for direction, title, passes in ((FORWARD, "inference", 1), (STEP, "training step", 3)):
        for name, image, macs, inference, training in NETWORKS:
            for n in batches or (inference if direction == FORWARD else training):
                yield Case(
                    suite="nets",
                    group=title,
                    name=f"{name} n{n}",
                    op="network",
                    direction=direction,
                    shape=(n, *image),
                    flops=2.0 * passes * macs * n,
                    options={"network": name},
                )


# ---- pycnn against itself --------------------------------------------------------------------------------------------


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return counts if most == 1 else [*counts, most]


def scaling_families(batches: Iterable[int] | None, threads: int) -> Iterator[Family]:
    """The same work on 1, 2, 4, ... threads."""
    chosen = [case for n in batches or (1, 16) for case in _scaling_cases(n)]
    counts = thread_counts(threads)
    for case in chosen:
        cases = tuple(replace(case, threads=count) for count in counts)
        labels = tuple(plural(count, "thread") for count in counts)
        yield Family("scaling", case.group, case.name, cases, labels)


def _scaling_cases(n: int) -> Iterator[Case]:
    geometries = [g for g in RESNET50 if g[1] in (224, 56, 14)] + [g for g in MOBILENET if g[5] > 1 and g[3] == 3]
    for direction in CONV_DIRECTIONS:
        for geometry in geometries:
            if direction == FORWARD or geometry[0] > 4:
                yield conv_case(geometry, n, direction, suite="scaling")
    for source in (norm_cases, act_cases, pool_cases):
        for case in source((n,)):
            if case.op != "activation" or case.options["kind"] in ("relu", "gelu"):
                yield replace(case, suite="scaling")


ODD_CHANNELS = (1, 3, 12, 20, 33, 70, 100)


def tails_families(batches: Iterable[int] | None, threads: int, width: int) -> Iterator[Family]:
    """Channel counts that no vector fits, against the same layer with the count rounded up to whole vectors."""
    for direction in CONV_DIRECTIONS:
        for n in batches or (1, 16):
            for kernel in (1, 3):
                for channels in ODD_CHANNELS:
                    rounded = -(-channels // width) * width
                    if rounded == channels:
                        continue
                    pair = [
                        conv_case((c, 28, c, kernel, 1, 1), n, direction, suite="tails") for c in (rounded, channels)
                    ]
                    cases = tuple(replace(case, threads=threads) for case in pair)
                    yield Family(
                        "tails",
                        f"{kernel}x{kernel} {direction}",
                        f"{channels} for {rounded} channels 28x28 n{n}",
                        cases,
                        (plural(rounded, "channel"), plural(channels, "channel")),
                    )


# ---- suites ----------------------------------------------------------------------------------------------------------

SUITES = {
    "conv": conv_cases,
    "norm": norm_cases,
    "act": act_cases,
    "pool": pool_cases,
    "update": update_cases,
    "nets": net_cases,
}
FAMILIES = ("scaling", "tails")
NAMES = (*SUITES, *FAMILIES, "all")


def select(suites: Iterable[str], batches: list[int] | None, threads: int, text: str) -> list[Case]:
    """Cases of the suites ('all': every one) whose titles contain the text, those of a group side by side."""
    wanted = set(suites)
    found = [
        replace(case, threads=threads)
        for name, cases in SUITES.items()
        if name in wanted or "all" in wanted
        for case in cases(batches)
        if text.lower() in case.title.lower()
    ]
    return _by_group(found)


Grouped = TypeVar("Grouped", Case, Family)


def _by_group(items: list[Grouped]) -> list[Grouped]:
    groups = list(dict.fromkeys((item.suite, item.group) for item in items))
    return sorted(items, key=lambda item: groups.index((item.suite, item.group)))


def select_families(
    suites: Iterable[str], batches: list[int] | None, threads: int, width: int, text: str
) -> list[Family]:
    wanted = set(suites)
    found: list[Family] = []
    if "scaling" in wanted or "all" in wanted:
        found += scaling_families(batches, threads)
    if "tails" in wanted or "all" in wanted:
        found += tails_families(batches, threads, width)
    return _by_group([family for family in found if text.lower() in family.title.lower()])
