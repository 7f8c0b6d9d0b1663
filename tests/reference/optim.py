"""Updates: one step of each optimizer on one parameter, in the order of operations that PyTorch documents.

A step takes the parameter w and its gradient g and returns the new w. `state` is a dict, empty before the
first step, that keeps what the optimizer remembers of this parameter: velocities, averages, the number of
steps.
"""

import numpy as np


def sgd_step(w, g, state, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """Momentum averages the gradient into a velocity; Nesterov looks one step of that velocity ahead.

    The first velocity is the gradient itself, undampened. Sutskever et al., "On the importance of
    initialization and momentum in deep learning", ICML 2013.
    """
    g = g + weight_decay * w
    if momentum:
        first = "velocity" not in state
        velocity = g if first else momentum * state["velocity"] + (1 - dampening) * g
        state["velocity"] = velocity
        g = g + momentum * velocity if nesterov else velocity
    return w - lr * g


def adam_step(w, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """A step of about lr in each coordinate: the averaged gradient over the root of its averaged square.

    Both averages start at 0; the division by 1 - beta^t takes that bias out. Weight decay is added to the
    gradient. Kingma and Ba, "Adam: a method for stochastic optimization" (2014), arXiv:1412.6980.
    """
    return _adam_update(w, g + weight_decay * w, state, lr, betas, eps)


def adamw_step(w, g, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    """Adam whose weight decay shrinks w directly, instead of passing through the averages.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2017), arXiv:1711.05101.
    """
    return _adam_update(w - lr * weight_decay * w, g, state, lr, betas, eps)


def _adam_update(w, g, state, lr, betas, eps):
    beta1, beta2 = betas
    t = state["step"] = state.get("step", 0) + 1
    mean = state["mean"] = beta1 * state.get("mean", 0) + (1 - beta1) * g
    square = state["square"] = beta2 * state.get("square", 0) + (1 - beta2) * g * g
    unbiased_mean = mean / (1 - beta1**t)
    unbiased_square = square / (1 - beta2**t)
    return w - lr * unbiased_mean / (np.sqrt(unbiased_square) + eps)


def rmsprop_step(w, g, state, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    """The gradient over the root of its averaged square; `centered` uses the variance instead of the square.

    Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning" (2012); Graves, "Generating
    sequences with recurrent neural networks" (2013), arXiv:1308.0850, for the centred form.
    """
    g = g + weight_decay * w
    square = state["square"] = alpha * state.get("square", 0) + (1 - alpha) * g * g
    if centered:
        mean = state["mean"] = alpha * state.get("mean", 0) + (1 - alpha) * g
        square = square - mean * mean
    step = g / (np.sqrt(square) + eps)
    if momentum:
        step = state["velocity"] = momentum * state.get("velocity", 0) + step
    return w - lr * step


def clip_grad_norm(grads, max_norm):
    """Returns the gradients, scaled down together if their joint Euclidean norm exceeds max_norm, and that
    norm.
    """
    norm = np.sqrt(sum(np.square(g).sum() for g in grads))
    scale = min(1.0, max_norm / (norm + 1e-6))
    return [g * scale for g in grads], norm
