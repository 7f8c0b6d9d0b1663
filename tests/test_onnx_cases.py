"""The cases that come with the onnx package: for every operator that `load` takes, what it must answer.

A case is a model of one or a few nodes with inputs and outputs. pycnn wants weights and shapes as constants, so all
inputs but those in `DYNAMIC` become initializers before the model is loaded."""
