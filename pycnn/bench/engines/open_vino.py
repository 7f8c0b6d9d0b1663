"""OpenVINO: a model of one node, with its tensors row-major and channels-last."""

from __future__ import annotations

import importlib
from typing import Any

from pycnn.bench import arrays
from pycnn.bench.cases import Case
from pycnn.bench.engines import Work, onnx_models


class _OpenVino:
    def __init__(self) -> None:
        self._openvino: Any = importlib.import_module("openvino")
        self._core = self._openvino.Core()

    def describe(self) -> dict[str, str]:
        return {"version": self._openvino.__version__.partition("-")[0]}

    def use_threads(self, threads: int) -> None:
        """Threads are a compiled model's own."""

    def prepare(self, case: Case) -> dict[str, Work]:
        text = onnx_models.build(case)
        if text is None:
            return {}
        x = arrays.normal(case.shape, 0)
        if len(case.shape) != 4 or case.op == "network":
            return {"": self._work(self._core.read_model(model=text), x, False, case.threads)}
        nhwc = arrays.channels_last(x).transpose(0, 2, 3, 1)
        return {
            "nchw": self._work(self._core.read_model(model=text), x, False, case.threads),
            "channels_last": self._work(self._read_channels_last(text), nhwc, True, case.threads),
        }

    def _read_channels_last(self, text: bytes) -> Any:
        """The model with tensors of shape (n, h, w, c) around it."""
        model = self._core.read_model(model=text)
        layout = self._openvino.Layout
        steps = self._openvino.preprocess.PrePostProcessor(model)
        for end in (steps.input(), steps.output()):
            end.tensor().set_layout(layout("NHWC"))
            end.model().set_layout(layout("NCHW"))
        return steps.build()

    def _work(self, model: Any, x: Any, nhwc: bool, threads: int) -> Work:
        compiled = self._core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
            },
        )
        request = compiled.create_infer_request()
        request.set_input_tensor(self._openvino.Tensor(x, shared_memory=True))

        def result(_: Any) -> Any:
            y = request.get_output_tensor().data
            return y.transpose(0, 3, 1, 2) if nhwc else y

        return Work(lambda: request.infer(share_outputs=True), result, holds=x)


def create(threads: int) -> _OpenVino:
    return _OpenVino()
