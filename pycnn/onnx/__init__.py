"""Networks in ONNX files: `load` makes a trainable Module of one, `save` writes any Module.

Needs the onnx package: pip install pycnn[onnx]. What maps to what stands in docs/onnx.md.
"""

from pycnn.onnx.exporter import save
from pycnn.onnx.importer import load
from pycnn.onnx.module import OnnxModule

__all__ = ["OnnxModule", "load", "save"]
