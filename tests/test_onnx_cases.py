"""The cases that come with the onnx package, for every operator that `pycnn.onnx.load` takes.

A case is a model of one or a few nodes, with inputs and outputs. Weights and shapes are inputs in most of them, where
networks have constants: all but the first are made initializers, or none of the floats where that is what works.
"""

import warnings

import numpy as np
import pytest

import pycnn

onnx = pytest.importorskip("onnx")

from pycnn.onnx.operators import OPERATORS  # noqa: E402

# At least so many cases of each operator, or set of operators, are answered right; the others need what pycnn refuses:
# other dimensions than (n, c, h, w), cubic resizing, products of computed matrices, results besides the first, ...
ANSWERED = {
    "Abs": 1,
    "Abs+ReduceSum": 8,
    "Add": 2,
    "AveragePool": 12,
    "BatchNormalization": 2,
    "Celu": 1,
    "Clip": 9,
    "Concat": 12,
    "Conv": 6,
    "ConvTranspose": 9,
    "DepthToSpace": 2,
    "Div": 3,
    "Dropout": 3,
    "Elu": 3,
    "Expand": 2,
    "Flatten": 9,
    "Gather": 4,
    "Gelu": 4,
    "Gemm": 11,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "GroupNormalization": 2,
    "HardSigmoid": 3,
    "HardSigmoid+Mul": 1,
    "HardSwish": 1,
    "Identity": 1,
    "InstanceNormalization": 2,
    "LayerNormalization": 19,
    "LeakyRelu": 3,
    "LogSoftmax": 7,
    "MatMul": 1,
    "Max": 1,
    "MaxPool": 11,
    "Mean": 3,
    "Min": 1,
    "Mish": 1,
    "Mul": 3,
    "Mul+ReduceSum": 8,
    "Mul+Softplus+Tanh": 1,
    "Neg": 2,
    "PRelu": 2,
    "Pad": 3,
    "Pow": 1,
    "ReduceMean": 8,
    "ReduceSum": 11,
    "Relu": 1,
    "Reshape": 9,
    "Resize": 8,
    "Selu": 3,
    "Sigmoid": 2,
    "Slice": 8,
    "Softmax": 7,
    "Softplus": 2,
    "SpaceToDepth": 4,
    "Split": 13,
    "Squeeze": 2,
    "Sub": 3,
    "Sum": 3,
    "Tanh": 2,
    "Transpose": 7,
    "Unsqueeze": 7,
    "Upsample": 1,
}


@pytest.fixture(scope="module")
def cases():
    """(operators, model, inputs, outputs, rtol, atol) by name, of those that are about float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its float8 arithmetic overflows
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found = {}
    for case in collected:
        kinds = {node.op_type for node in case.model.graph.node}
        inputs, outputs = case.data_sets[0]
        floats = inputs and all(getattr(a, "dtype", None) == np.float32 for a in (inputs[0], *outputs[:1]))
        # Random numbers are other numbers in pycnn.
        if kinds <= OPERATORS.keys() and floats and not case.name.startswith("test_training_dropout"):
            found.setdefault("+".join(sorted(kinds)), []).append(case)
    return found


def answer(case, dynamic, path):
    """pycnn's outputs for the inputs of the case, of which only those named in `dynamic` stay inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    inputs = dict(zip([item.name for item in graph.input], case.data_sets[0][0], strict=True))
    kept = [item for item in graph.input if item.name in dynamic]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in inputs.items() if n not in dynamic)
    if graph.node[0].op_type == "LayerNormalization":
        del graph.output[1:]  # mean and deviation, which training wants
    onnx.save(model, path)
    y = pycnn.onnx.load(path)(*[inputs[item.name] for item in kept])
    return y if isinstance(y, tuple) else (y,)


def is_right(case, path):
    """Whether pycnn takes the case; what it answers must then be right."""
    inputs, outputs = case.data_sets[0]
    names = [item.name for item in case.model.graph.input]
    floats = [name for name, a in zip(names, inputs, strict=True) if a.dtype == np.float32]
    for dynamic in (names[:1], floats):
        try:
            got = answer(case, dynamic, path)
        except ValueError as error:
            assert "node " in str(error) or "value " in str(error), f"{case.name}: {error}"
            continue
        for y, want in zip(got, outputs, strict=False):
            assert y.shape == want.shape, case.name
            np.testing.assert_allclose(y, want, max(case.rtol, 1e-4), max(case.atol, 1e-5), err_msg=case.name)
        return True
    return False


@pytest.mark.parametrize("operators", ANSWERED)
def test_cases(cases, operators, tmp_path):
    right = [case.name for case in cases[operators] if is_right(case, tmp_path / "case.onnx")]
    assert len(right) >= ANSWERED[operators], right


def test_no_operator_is_left_out(cases):
    assert cases.keys() <= ANSWERED.keys() | {"Cast"}  # whose cases are all about other types
    assert sum(ANSWERED.values()) > 280
