"""Optimizers, with the names, arguments and semantics of `torch.optim`."""

from pycnn.optim import lr_scheduler
from pycnn.optim.adam import Adam, AdamW
from pycnn.optim.averaging import WeightAverage
from pycnn.optim.clip import clip_grad_norm_, clip_grad_value_
from pycnn.optim.optimizer import Optimizer
from pycnn.optim.rmsprop import RMSprop
from pycnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "WeightAverage",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
