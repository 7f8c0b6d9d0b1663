"""Module: what every layer and every network is."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pycnn import random
from pycnn._core import Arena
from pycnn.parameter import FLOAT_DTYPES, Array, Parameter, StructureEpoch
from pycnn.tracing import Tensor, Traced, Tracer

_TRACES_KEPT = 4  # per module: training, its smaller last batch, evaluation, and one to spare


def _tensors(args: Iterable[Any]) -> tuple[Tensor, ...]:
    """The symbolic tensors among arguments, those in lists and tuples included."""
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, (tuple, list)):
            found += _tensors(arg)
    return tuple(found)


def _traceable(forward: Any) -> Any:
    """Makes a `forward` that, given arrays, traces itself and runs the graph."""

    @functools.wraps(forward)
    def wrapper(self: Module, *args: Any, **kwargs: Any) -> Any:
        sources = _tensors((*args, *kwargs.values()))
        if sources:
            result = forward(self, *args, **kwargs)
            sources[0].tracer.records.append((self, sources, result))
            return result
        if kwargs:
            args = inspect.signature(forward).bind(self, *args, **kwargs).args[1:]
        return self._run(args)

    wrapper.__wrapped_forward__ = forward  # type: ignore[attr-defined]
    return wrapper


class Module:
    """A layer or a network: parameters, buffers, submodules and a `forward`.

    `forward(x)` is written over symbolic tensors (see `pycnn.functional`). Calling the module, or its forward, with
    NumPy arrays traces it once per combination of shapes, dtype and modes, runs the graph in C with the GIL released,
    and returns new arrays; `backward(dy)` then gives the gradient of the last forward, and adds to the `grad` of the
    parameters.

    In training mode the engine keeps what backward needs. In evaluation mode an array that lies channels-last is used
    in place, so it must not change between forward and backward.

    float32 is the working type; after `double()` a module computes in float64 by reference kernels. A module without
    parameters takes the type of its input.
    """

    training: bool

    def __init__(self) -> None:
        hidden = self.__dict__
        hidden["_parameters"] = {}
        hidden["_buffers"] = {}
        hidden["_modules"] = {}
        hidden["training"] = True
        hidden["_version"] = 0
        hidden["_traces"] = OrderedDict()
        hidden["_arena"] = Arena()  # one for all traces: only the last forward can be gone back from
        hidden["_last"] = None
        hidden["_last_key"] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            cls.forward = _traceable(cls.__dict__["forward"])  # type: ignore[method-assign]

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        hidden = self.__dict__
        if "_parameters" not in hidden:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before setting {name!r}")
        if name in hidden["_buffers"]:
            self._set_buffer(name, value)
            return
        for registry in (hidden["_parameters"], hidden["_modules"], hidden):
            registry.pop(name, None)
        if isinstance(value, Parameter):
            hidden["_parameters"][name] = value
        elif isinstance(value, Module):
            hidden["_modules"][name] = value
        else:
            hidden[name] = value
        self._changed()

    def __getattr__(self, name: str) -> Any:
        hidden = self.__dict__
        for registry in ("_parameters", "_buffers", "_modules"):
            if registry in hidden and name in hidden[registry]:
                return hidden[registry][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[registry]:
                del self.__dict__[registry][name]
                break
        else:
            object.__delattr__(self, name)
        self._changed()

    def _changed(self) -> None:
        self.__dict__["_version"] += 1
        StructureEpoch.advance()

    def _set_buffer(self, name: str, value: Any) -> None:
        current = self._buffers[name]
        array = None if value is None else np.asarray(value)
        if array is not None and current is not None and array.shape == current.shape:
            current[...] = array  # in place: traced networks and views keep seeing it
            return
        self._buffers[name] = None if array is None else np.array(array)
        self._changed()

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Adds an array that is state but not trained, as running statistics are. None declares it absent."""
        self._buffers[name] = value
        self._changed()

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Adds a parameter under a name. None declares it absent, as a bias that is not wanted."""
        if parameter is None:
            self.__dict__.pop(name, None)
            self._parameters[name] = None
            self._changed()
        else:
            setattr(self, name, parameter)

    def add_module(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module: got {type(module).__name__}, expected Module")
        self.__dict__.pop(name, None)
        self._modules[name] = module
        self._changed()

    # -- walking

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names."""
        yield from self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            yield from module._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def children(self) -> Iterator[Module]:
        yield from self._modules.values()

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._modules.items()

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{prefix}.{name}" if prefix else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        for prefix, module in self.named_modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield (f"{prefix}.{name}" if prefix else name), buffer

    def buffers(self) -> Iterator[Array]:
        for _, buffer in self.named_buffers():
            yield buffer

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold, each parameter counted once."""
        return sum(p.size for p in self.parameters())

    def _weights(self) -> list[Parameter]:
        """Of this module's own parameters those that multiply in a convolution or a matrix product."""
        return []

    def macs(self, input_shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for one image: for a convolution K^2 N_in N_out H W / groups, H and W of the output.

        Args:
            input_shape: (n, c, h, w), or (c, h, w); n does not count.
        """
        from pycnn._summary import count_macs

        return count_macs(self, input_shape)

    # -- modes and types

    def train(self, mode: bool = True) -> Module:
        for module in self.modules():
            if module.training != bool(mode):
                module.__dict__["training"] = bool(mode)
                StructureEpoch.advance()
        return self

    def eval(self) -> Module:
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.zero_grad()

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freezes (False) or unfreezes all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def _astype(self, dtype: Any) -> Module:
        for parameter in self.parameters():
            parameter.astype_(dtype)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype in FLOAT_DTYPES:
                    module._buffers[name] = buffer.astype(dtype)
            module._changed()
        return self

    def double(self) -> Module:
        """Makes parameters and buffers float64, in place: the module then computes by the reference kernels."""
        return self._astype(np.float64)

    def float(self) -> Module:
        """Makes parameters and buffers float32, in place."""
        return self._astype(np.float32)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type it computes in, or None without parameters and float buffers: then the input's."""
        for parameter in self.parameters():
            return parameter.dtype
        for buffer in self.buffers():
            if buffer.dtype in FLOAT_DTYPES:
                return buffer.dtype
        return None

    def apply(self, fn: Any) -> Module:
        """Calls fn(module) on every module below, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- state

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by dotted name, in PyTorch's naming."""
        state: dict[str, Array] = {}
        self._collect_state("", state)
        return state

    def _collect_state(self, prefix: str, state: dict[str, Array]) -> None:
        # Not by named_modules: a module that stands in two places has its names in both, as in PyTorch.
        for name, parameter in self._parameters.items():
            if parameter is not None:
                state[prefix + name] = parameter.data.copy()
        for name, buffer in self._buffers.items():
            if buffer is not None:
                state[prefix + name] = buffer.copy()
        for name, module in self._modules.items():
            module._collect_state(f"{prefix}{name}.", state)

    def _targets(self, prefix: str, targets: dict[str, Array]) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                targets[prefix + name] = parameter.data
        for name, buffer in self._buffers.items():
            if buffer is not None:
                targets[prefix + name] = buffer
        for name, module in self._modules.items():
            module._targets(f"{prefix}{name}.", targets)

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies values in by name; nothing is changed unless everything fits.

        Args:
            state_dict: arrays by dotted name.
            strict: raise when names are missing or unexpected.

        Returns:
            (missing names, unexpected names).

        Raises:
            ValueError: a name is missing or unexpected (strict), or a shape differs.
        """
        targets: dict[str, Array] = {}
        self._targets("", targets)
        missing = [name for name in targets if name not in state_dict]
        unexpected = [name for name in state_dict if name not in targets]
        problems = []
        if strict and missing:
            problems.append(f"missing {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected {', '.join(unexpected)}")
        for name, target in targets.items():
            if name in state_dict and np.shape(state_dict[name]) != target.shape:
                problems.append(f"{name}: got shape {np.shape(state_dict[name])}, expected {target.shape}")
        if problems:
            raise ValueError(f"state_dict: {'; '.join(problems)}")
        for name, target in targets.items():
            if name in state_dict:
                target[...] = np.asarray(state_dict[name])
        return missing, unexpected

    # -- running

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def backward(self, *gradients: Any) -> Any:
        """The gradient of the last forward.

        Args:
            gradients: the gradient of the loss by each output, of the output's shape. With several outputs, None stands
                for zero.

        Returns:
            The gradient by the input (a tuple with several inputs). Parameters' `grad` accumulates.

        Raises:
            RuntimeError: before any forward. TypeError, ValueError: a gradient of the wrong dtype or shape.
        """
        if self._last is None:
            raise RuntimeError(f"{type(self).__name__}.backward: call forward first")
        return self._last.backward(gradients)

    def trace(
        self, input_shapes: tuple[tuple[int, ...], ...], dtype: str = "float32", input_gradients: bool = True
    ) -> tuple[Tracer, Any]:
        """Runs `forward` over symbolic inputs of these shapes; returns the tracer and what forward returned."""
        tracer = Tracer(dtype, input_gradients)
        names = self._argument_names(len(input_shapes))
        inputs = [tracer.input(name, shape) for name, shape in zip(names, input_shapes, strict=True)]
        return tracer, self.forward(*inputs)

    def _argument_names(self, count: int) -> list[str]:
        forward = getattr(type(self).forward, "__wrapped_forward__", type(self).forward)
        names: list[str] = []
        for parameter in list(inspect.signature(forward).parameters.values())[1:]:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
            elif parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                names.append(parameter.name)
        if len(names) < count:
            raise TypeError(f"{type(self).__name__}.forward: got {count} arguments, expected {len(names)}")
        return names[:count]

    def _run(self, arrays: tuple[Any, ...]) -> Any:
        key = tuple([getattr(a, "shape", None) for a in arrays]), tuple([getattr(a, "dtype", None) for a in arrays])
        hidden = self.__dict__
        if hidden["_last"] is None or hidden["_last_key"] != (StructureEpoch.value, key):
            hidden["_last"] = None  # if this fails, there is no last forward
            hidden["_last"] = self._find_trace(arrays, key)
            hidden["_last_key"] = (StructureEpoch.value, key)
        return hidden["_last"].forward(arrays, *random.next_call())

    def _find_trace(self, arrays: tuple[Any, ...], key: Any) -> Traced:
        names = self._argument_names(len(arrays))
        if not arrays:
            raise TypeError(f"{type(self).__name__}.forward: got no arguments, expected arrays")
        own = self.dtype
        for name, array in zip(names, arrays, strict=True):
            wanted = "float32 or float64" if own is None else str(own)
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name}: got {type(array).__name__}, expected a NumPy array of {wanted}")
            dtype = array.dtype.newbyteorder("=")
            if dtype not in FLOAT_DTYPES or (own is not None and dtype != own):
                raise TypeError(f"{name}: got dtype {array.dtype}, expected {wanted}")
        traces: OrderedDict[Any, Traced] = self.__dict__["_traces"]
        signature = (key, self._structure())
        if signature in traces:
            traces.move_to_end(signature)
            return traces[signature]
        dtype_name = str(own) if own is not None else str(arrays[0].dtype.newbyteorder("="))
        tracer, results = self.trace(tuple(a.shape for a in arrays), dtype_name)
        traced = Traced(tracer, results, copy=self.training, arena=self.__dict__["_arena"])
        if len(traces) >= _TRACES_KEPT:
            traces.popitem(last=False)
        traces[key, self._structure()] = traced  # asked again: forward may have set attributes
        return traced

    def _structure(self) -> tuple[Any, ...]:
        """What a trace depends on: modules, their modes and attributes, where parameters lie and which are trained."""
        return (
            tuple([(id(m), m.training, m._version) for m in self.modules()]),
            tuple([(id(p), p.data.ctypes.data, p.requires_grad) for p in self.parameters()]),
        )

    # -- copying: traces belong to one object

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.update(_traces=OrderedDict(), _last=None, _last_key=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        StructureEpoch.advance()

    # -- text

    def extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}({self.extra_repr()}\n" + "\n".join(lines) + "\n)"
