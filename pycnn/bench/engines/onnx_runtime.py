"""ONNX Runtime: a model of one node as it is, and, where it works in its own blocked layout, in that layout.

Around a lone convolution ONNX Runtime puts a conversion into its blocked layout and one back, which in a network nearly
all fall away. The second variant leaves them out: it is the optimized model without its first and last node.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from pycnn.bench import arrays
from pycnn.bench.cases import Case
from pycnn.bench.engines import Work, onnx_models


class _OnnxRuntime:
    def __init__(self) -> None:
        self._onnx: Any = importlib.import_module("onnx")
        self._runtime: Any = importlib.import_module("onnxruntime")

    def describe(self) -> dict[str, str]:
        return {"version": self._runtime.__version__}

    def use_threads(self, threads: int) -> None:
        """Threads are a session's own."""

    def prepare(self, case: Case) -> dict[str, Work]:
        model = onnx_models.build(case)
        if model is None:
            return {}
        x = arrays.normal(case.shape, 0)
        if case.op == "network":
            return {"": self._work(self._session(model, case.threads), x)}
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder, "optimized.onnx")
            session = self._session(model, case.threads, optimized)
            variants = {"nchw" if len(case.shape) == 4 else "": self._work(session, x)}
            inner = self._onnx.load(optimized)
        reorders = [node for node in inner.graph.node if node.op_type in ("ReorderInput", "ReorderOutput")]
        if reorders:
            variants["blocked"] = self._blocked(inner, reorders, x, case.threads)
        return variants

    def _session(self, model: bytes, threads: int, optimized: Path | None = None) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _work(self, session: Any, x: Any) -> Work:
        """Runs on memory that is bound once, so that nothing is copied or allocated."""
        name = session.get_inputs()[0].name
        [dst] = session.run(None, {name: x})
        binding = session.io_binding()
        source = self._runtime.OrtValue.ortvalue_from_numpy(x)
        binding.bind_ortvalue_input(name, source)
        output = self._runtime.OrtValue.ortvalue_from_numpy(dst)
        binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
        return Work(lambda: session.run_with_iobinding(binding), lambda _: output.numpy(), holds=(source, x))

    def _blocked(self, model: Any, reorders: list[Any], x: Any, threads: int) -> Work:
        """The model between its reorders."""
        for node in reorders:
            model.graph.node.remove(node)
            if node.op_type == "ReorderInput":
                x = self._run(self._alone(model, node), x, threads)
                _rename(model.graph.input[0], node.output[0], x.shape)
            else:
                after = self._alone(model, node)
                _rename(model.graph.output[0], node.input[0], None)
        work = self._work(self._session(model.SerializeToString(), threads), x)
        blocked = work.result
        if blocked is not None and reorders[-1].op_type == "ReorderOutput":
            work.result = lambda returned: self._run(after, blocked(returned), threads)
        return work

    def _alone(self, model: Any, node: Any) -> bytes:
        """A model of this node."""
        helper = self._onnx.helper
        float32 = self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [node],
            "reorder",
            [helper.make_tensor_value_info(node.input[0], float32, None)],
            [helper.make_tensor_value_info(node.output[0], float32, None)],
        )
        alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        text: bytes = alone.SerializeToString()
        return text

    def _run(self, model: bytes, x: Any, threads: int) -> Any:
        session = self._session(model, threads)
        return session.run(None, {session.get_inputs()[0].name: x})[0]


def _rename(value: Any, name: str, shape: tuple[int, ...] | None) -> None:
    """Makes this the value of that name and shape (None: any)."""
    value.name = name
    value.type.tensor_type.ClearField("shape")
    for size in shape or ():
        value.type.tensor_type.shape.dim.add().dim_value = size


def create(threads: int) -> _OnnxRuntime:
    return _OnnxRuntime()
