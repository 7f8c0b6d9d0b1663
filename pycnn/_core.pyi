from collections.abc import Sequence
from typing import Any

from pycnn.parameter import Array

class Graph:
    dtype: str
    sources: dict[int, tuple[int | None, ...]]
    def __init__(self, dtype: str) -> None: ...
    def input(self, shape: Sequence[int], dtype: str | None = None) -> int: ...
    def parameter(self, shape: Sequence[int]) -> int: ...
    def state(self, shape: Sequence[int], dtype: str) -> int: ...
    def output(self, value: int) -> None: ...
    def watch(self, value: int) -> None: ...
    def require_gradient(self, value: int) -> None: ...
    def shape(self, value: int) -> tuple[int, ...]: ...
    def name(self, value: int, name: str) -> None: ...
    def describe(self, text: str) -> None: ...
    def conv2d(
        self,
        src: int,
        weights: int,
        bias: int | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> int: ...
    def conv_transpose2d(
        self,
        src: int,
        weights: int,
        bias: int | None,
        stride: Sequence[int],
        padding: Sequence[int],
        output_padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> int: ...
    def linear(self, src: int, weights: int, bias: int | None) -> int: ...
    def norm(
        self,
        kind: str,
        sources: Sequence[int | None],
        eps: float,
        momentum: float | None = 0.1,
        groups: int = 1,
        axes: int = 1,
        training: bool = True,
    ) -> int: ...
    def activation(self, kind: str, src: int, alpha: float = 0.0, beta: float = 0.0) -> int: ...
    def prelu(self, src: int, slope: int) -> int: ...
    def softmax(self, src: int, axis: int, log: bool) -> int: ...
    def max_pool2d(
        self,
        src: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
    ) -> int: ...
    def avg_pool2d(
        self,
        src: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
    ) -> int: ...
    def resize(
        self,
        kind: str,
        src: int,
        size: Sequence[int],
        scale: Sequence[float] = (0.0, 0.0),
        align_corners: bool = False,
    ) -> int: ...
    def dropout(self, src: int, p: float, training: bool, per_channel: bool) -> int: ...
    def reshape(self, src: int, shape: Sequence[int]) -> int: ...
    def add(self, left: int, right: int, alpha: float = 1.0) -> int: ...
    def multiply(self, left: int, right: int) -> int: ...
    def affine(self, src: int, alpha: float, beta: float) -> int: ...
    def concat(self, sources: Sequence[int], axis: int) -> int: ...
    def slice(self, src: int, start: Sequence[int], step: Sequence[int], size: Sequence[int]) -> int: ...
    def loss(
        self,
        kind: str,
        sources: Sequence[int | None],
        reduction: str,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> int: ...

class Arena:
    bytes: int

class Runner:
    has_backward: bool
    bytes: int
    def bytes_by_kind(self) -> dict[str, int]: ...
    def __init__(
        self,
        graph: Graph,
        inputs: list[tuple[str, int, str]],
        outputs: list[int],
        backward: bool = True,
        repeat: bool = True,
        copy: bool = True,
        reference: bool = False,
        winograd: bool = True,
        recompute: str = "cheap",
        arena: Arena | None = None,
    ) -> None: ...
    def bind(self, value: int, data: Array, diff: Array | None = None) -> None: ...
    def forward(self, arrays: tuple[Array, ...], seed: int = 0, call: int = 0) -> list[Array]: ...
    def train(
        self,
        arrays: tuple[Array, ...],
        training: Training,
        seed: int = 0,
        call: int = 0,
        share: float = 1.0,
        accumulate: bool = False,
        postpone: bool = False,
    ) -> tuple[list[Array], float, float]: ...
    def backward(self, arrays: tuple[Array | None, ...], want_inputs: bool = True) -> list[Any]: ...

class FrozenPlan:
    names: list[str]
    input_shapes: list[tuple[int, ...]]
    output_shapes: list[tuple[int, ...]]
    dtype: str
    description: str
    @staticmethod
    def freeze(
        graph: Graph,
        constants: list[tuple[int, Array]],
        winograd: bool = True,
        threads: int = 0,
        reference: bool = False,
        final: bool = False,
    ) -> FrozenPlan: ...
    @staticmethod
    def load(content: bytes, winograd: bool = True, threads: int = 0, final: bool = False) -> FrozenPlan: ...
    def save(self) -> bytes: ...
    def bytes(self) -> dict[str, int]: ...
    def run(self, arrays: tuple[Array, ...]) -> list[Array]: ...

class Segments:
    def __init__(self, dtype: Any, rows: list[tuple[Array, Array, int]]) -> None: ...
    def update(self, rule: str, state: tuple[Array | None, ...], step: int, **options: Any) -> None: ...
    def gradient_norm(self, infinity: bool = False) -> float: ...
    def scale_gradients(self, scale: float) -> None: ...
    def penalty(self, l1: float, l2: float, add_gradient: bool) -> float: ...
    def average(self, array: Array, decay: float) -> None: ...
    def soft_threshold(self, threshold: float) -> None: ...

class Training:
    def __init__(
        self,
        trained: Segments,
        penalized: Segments | None,
        sweeps: list[tuple[Segments, Segments | None]],
        clip_norm: float = 0.0,
        averaged: tuple[Segments, Array, float] | None = None,
    ) -> None: ...
    def set_penalty(self, l1: float, l2: float, proximal: bool) -> None: ...
    def set_sweep(
        self,
        number: int,
        rule: str,
        state: tuple[Array | None, ...],
        step: int,
        options: dict[str, Any],
        threshold: float = 0.0,
    ) -> None: ...

def fill_uniform(array: Array, low: float, high: float, seed: int, stream: int) -> None: ...
def fill_normal(array: Array, mean: float, std: float, seed: int, stream: int) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(num_threads: int) -> None: ...
def run_multiply_adds() -> float: ...
def run_copy(src: Array, dst: Array) -> None: ...
def cpu_info() -> dict[str, Any]: ...

_C_API: object  # the capsule of pycnn/include/cnn_api.h
