"""Layers, with the names, arguments and semantics of `torch.nn`."""

from pycnn.nn import init
from pycnn.nn.activation import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from pycnn.nn.container import Dropout, Dropout2d, Flatten, Identity, ModuleList, Sequential
from pycnn.nn.conv import Conv2d, ConvTranspose2d, Linear
from pycnn.nn.module import Module
from pycnn.nn.norm import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm
from pycnn.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, Upsample
from pycnn.parameter import Parameter

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Identity",
    "InstanceNorm2d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Mish",
    "Module",
    "ModuleList",
    "PReLU",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "Upsample",
    "init",
]
