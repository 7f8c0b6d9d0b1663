"""What all optimizers share: parameter groups, and state that lies as flat as the parameters do."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pycnn._arguments import real
from pycnn._core import Segments
from pycnn.parameter import Array, Parameter, StructureEpoch, aligned_zeros, check_parameters, flat_runs

Group = dict[str, Any]

_GRANULE = 16  # elements: each run's state starts on a cache line
_ANNOTATIONS = {"params", "initial_lr", "name"}  # what a group may hold beside the options


@dataclass
class _Sweep:
    """Parameters that one call into the engine updates: of one group, and with equally many steps behind them."""

    group: Group
    parameters: list[Parameter]
    segments: Segments
    steps: int


class Update(NamedTuple):
    """One sweep's part in a step, as the engine takes it."""

    segments: Segments
    parameters: list[Parameter]
    state: tuple[Array | None, ...]
    step: int  # 1 in the first update
    options: dict[str, Any]
    steps: int  # counted after it


@dataclass
class _Memory:
    """What is remembered of one parameter: steps taken, and state by name in the parameter's shape."""

    steps: int
    arrays: dict[str, Array]


class Optimizer:
    """Base of the optimizers. It holds Parameters, never arrays: after `model.double()` it works on.

    Args:
        params: parameters, or groups: dicts with 'params' and options that differ from the defaults.
        defaults: the options of groups that do not give them.

    Attributes:
        param_groups: list of dicts with 'params' and every option, as 'lr'; options may be changed between steps.

    Parameters with `requires_grad` False are passed by; their state waits for them. State lies in one flat buffer per
    kind, beside which `step` sweeps parameters and gradients once, by one call into the engine per group.

    Raises:
        TypeError, ValueError: naming the option, or `params` if it holds anything but parameters, or one twice.
    """

    _rule: str  # the engine's name for the update

    def __init__(self, params: Any, defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._sweeps: list[_Sweep] = []
        self._offsets: dict[int, int] = {}  # by id of the parameter: where its state begins in each flat buffer
        self._state: dict[str, Array] = {}  # flat buffers by name
        self._length = 0  # of each flat buffer
        self._dtype = np.dtype(np.float32)
        self._idle: dict[int, _Memory] = {}  # of parameters that are in no sweep
        self._placement: Any = None  # what the sweeps were built for
        self._epoch: int | None = None
        for group in _as_groups(params):
            self.add_param_group(group)

    # -- what a subclass says

    def _check(self, group: Group) -> None:
        """Raises for options out of range."""
        raise NotImplementedError

    def _buffers(self, group: Group) -> tuple[str | None, ...]:
        """Names of the state buffers in the engine's order, None for one that the options make needless."""
        raise NotImplementedError

    def _options(self, group: Group) -> dict[str, Any]:
        """The engine's arguments."""
        raise NotImplementedError

    # -- groups

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group, for instance of layers that are unfrozen later; options it lacks come from the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group: got {type(param_group).__name__}, expected dict")
        if "params" not in param_group:
            raise ValueError("param_group: got no 'params'")
        unknown = [name for name in param_group if name not in self.defaults and name not in _ANNOTATIONS]
        if unknown:
            raise ValueError(f"param_group: got option {unknown[0]!r}, expected {', '.join(self.defaults)}")
        group = {**self.defaults, **param_group, "params": list(check_parameters(param_group["params"]))}
        self._check(group)
        present = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(p) in present for p in group["params"]):
            raise ValueError("params: got a parameter that another group has already")
        self.param_groups.append(group)
        self._epoch = None

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets that of all."""
        return float(self.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        rate = real(value, "lr", 0.0)
        for group in self.param_groups:
            group["lr"] = rate

    # -- the work

    def zero_grad(self) -> None:
        """Makes all gradients zero, in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.zero_grad()

    def step(self) -> None:
        """Updates the parameters by their gradients."""
        updates = self.next_updates()
        for update in updates:
            update.segments.update(self._rule, update.state, update.step, **update.options)
        self.count_step(updates)

    def next_updates(self) -> list[Update]:
        """What `step` would do, without doing it; `count_step` says that it has been done."""
        self._prepare()
        updates = []
        for sweep in self._sweeps:
            names = self._buffers(sweep.group)
            # Steps count from when there is state: momentum may be switched on later.
            steps = sweep.steps + 1 if any(names) else sweep.steps
            state = tuple([None if name is None else self._buffer(name) for name in names])
            updates.append(
                Update(sweep.segments, sweep.parameters, state, max(steps, 1), self._options(sweep.group), steps)
            )
        return updates

    def count_step(self, updates: list[Update]) -> None:
        for sweep, update in zip(self._sweeps, updates, strict=True):
            sweep.steps = update.steps

    @property
    def rule(self) -> str:
        """The engine's name for the update."""
        return self._rule

    def _buffer(self, name: str) -> Array:
        if name not in self._state:
            self._state[name] = aligned_zeros(self._length, self._dtype)
        return self._state[name]

    def _prepare(self) -> None:
        """Builds the sweeps anew if parameters moved, or were frozen or unfrozen."""
        if self._epoch == StructureEpoch.value:
            return
        epoch = StructureEpoch.value
        placement = [(id(p), p.data.ctypes.data, p.dtype, p.requires_grad) for p in self._numbered()]
        if placement != self._placement:
            self._build()
            self._placement = placement
        self._epoch = epoch

    def _build(self) -> None:
        memories = self._memories()
        trained = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        dtypes = {p.dtype for p in trained}
        if len(dtypes) > 1:
            raise TypeError(f"params: got {' and '.join(sorted(map(str, dtypes)))} parameters, expected one dtype")
        dtype = dtypes.pop() if dtypes else self._dtype
        sweeps: list[_Sweep] = []
        offsets: dict[int, int] = {}
        length = 0
        for group in self.param_groups:
            alike: dict[int, list[Parameter]] = {}
            for p in group["params"]:
                if p.requires_grad:
                    steps = memories[id(p)].steps if id(p) in memories else 0
                    alike.setdefault(steps, []).append(p)
            for steps, parameters in alike.items():
                rows = []
                for data, grad in flat_runs(parameters):
                    rows.append((data, grad, length))
                    length += -(-data.size // _GRANULE) * _GRANULE
                offsets.update(_places(parameters, rows))
                sweeps.append(_Sweep(group, parameters, Segments(dtype, rows), steps))
        state: dict[str, Array] = {}
        for p in trained:
            for name, array in memories.pop(id(p), _Memory(0, {})).arrays.items():
                flat = state.setdefault(name, aligned_zeros(length, dtype))
                flat[offsets[id(p)] : offsets[id(p)] + p.size] = array.ravel()
        self._sweeps, self._offsets, self._length, self._dtype = sweeps, offsets, length, dtype
        self._state, self._idle = state, memories

    def _memories(self) -> dict[int, _Memory]:
        """All state as copies, by id of the parameter."""
        memories = dict(self._idle)
        for sweep in self._sweeps:
            for p in sweep.parameters:
                where = slice(self._offsets[id(p)], self._offsets[id(p)] + p.size)
                arrays = {name: flat[where].reshape(p.shape).copy() for name, flat in self._state.items()}
                memories[id(p)] = _Memory(sweep.steps, arrays)
        return memories

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """State and options as plain data, in PyTorch's form.

        Returns:
            {'state': {number of the parameter: {'step': int, name: array, ...}}, 'param_groups': [{options, 'params':
            [numbers]}]}; parameters are numbered through all groups, arrays are copies.
        """
        memories = self._memories()
        numbered = self._numbered()
        state = {}
        for number, p in enumerate(numbered):
            memory = memories.get(id(p))
            if memory is not None and memory.steps > 0:
                state[number] = {"step": memory.steps, **memory.arrays}
        groups = []
        first = 0
        for group in self.param_groups:
            count = len(group["params"])
            groups.append({**group, "params": list(range(first, first + count))})
            first += count
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; nothing is changed unless everything fits.

        Raises:
            ValueError: groups, numbers of parameters, shapes or options do not fit.
        """
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(
                f"state_dict: got groups of {[len(g['params']) for g in groups]} parameters, "
                f"expected {[len(g['params']) for g in self.param_groups]}"
            )
        for group in groups:
            lacking = [name for name in self.defaults if name not in group]
            if lacking:
                raise ValueError(f"state_dict: got a group without {lacking[0]!r}")
            self._check(group)
        numbered = self._numbered()
        memories = {}
        for number, entry in state_dict["state"].items():
            if not 0 <= int(number) < len(numbered):
                raise ValueError(f"state_dict: got state of parameter {number}, expected 0 to {len(numbered) - 1}")
            p = numbered[int(number)]
            arrays = {name: np.array(value) for name, value in entry.items() if name != "step"}
            for name, array in arrays.items():
                if array.shape != p.shape:
                    raise ValueError(f"state_dict: got {name} {number} of shape {array.shape}, expected {p.shape}")
            memories[id(p)] = _Memory(int(entry["step"]), arrays)
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update({name: value for name, value in group.items() if name != "params"})
        self._sweeps, self._state, self._idle = [], {}, memories
        self._placement = self._epoch = None

    def _numbered(self) -> list[Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for number, group in enumerate(self.param_groups):
            options = ", ".join(f"{name}={group[name]!r}" for name in self.defaults)
            lines.append(f"  group {number}: {len(group['params'])} parameters, {options}")
        return "\n".join([*lines, ")"])


def _as_groups(params: Any) -> list[Group]:
    if isinstance(params, Parameter) or not isinstance(params, Iterable):
        raise TypeError(
            f"params: got {type(params).__name__}, expected parameters or groups, as model.parameters() gives them"
        )
    listed = list(params)
    if listed and all(isinstance(item, dict) for item in listed):
        return listed
    return [{"params": listed}]


def _places(parameters: list[Parameter], rows: list[tuple[Array, Array, int]]) -> dict[int, int]:
    """By id of the parameter: the offset of its state, which lies beside its run as the parameter lies in the run."""
    ordered = sorted((data.ctypes.data, data.itemsize, offset) for data, _, offset in rows)
    starts = [start for start, _, _ in ordered]
    places = {}
    for p in parameters:
        address = p.data.ctypes.data
        start, itemsize, offset = ordered[bisect.bisect_right(starts, address) - 1]
        places[id(p)] = offset + (address - start) // itemsize
    return places
