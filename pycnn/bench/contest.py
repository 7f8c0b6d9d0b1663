"""Contestants in processes of their own, and the contest: all take turns, round by round, on the same work."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from pycnn.bench import arrays
from pycnn.bench.cases import Case, Family
from pycnn.bench.engines import machine

# Keeps freed memory in place of giving it back to the system, and asks for huge pages: without it large tensors that
# are allocated anew on each call wait for the system's pages at a quarter of the memory's speed.
TUNED_MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"
TUNED = "+malloc"  # ends the names of contestants that run so


class ContestantError(ChildProcessError):
    """A contestant could not start, or its process ended."""


class Worker(Protocol):
    """A contestant that answers the requests of worker.py."""

    name: str
    about: dict[str, str]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]: ...

    def stop(self) -> None: ...


class Process:
    """A contestant in a process of its own. Its name is the engine's, with TUNED after it for the tuned allocator."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
        environment["OMP_NUM_THREADS"] = str(threads)
        if name.endswith(TUNED):
            environment["GLIBC_TUNABLES"] = TUNED_MALLOC
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: of a checkout that is the current folder nothing is imported.
            [sys.executable, "-P", "-m", "pycnn.bench.worker", name.removesuffix(TUNED), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self.about: dict[str, str] = self._read()["about"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading says why
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            tail = "\n".join(self._errors.read().splitlines()[-5:])
            raise ContestantError(f"{self.name}: its process ended with code {code}\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def contestants(engines: Iterable[str]) -> list[str]:
    """The engines, and after each to which the allocator matters the same with the tuned one, where there is glibc.

    ONNX Runtime and OpenVINO run on memory that they keep.
    """
    glibc = platform.libc_ver()[0] == "glibc"
    return [
        name
        for engine in engines
        for name in ([engine, engine + TUNED] if glibc and engine in ("pycnn", "torch") else [engine])
    ]


@dataclass
class Entry:
    """One way to do the work: a variant of a contestant's, with the seconds of all its calls, and of all threads."""

    worker: Worker
    key: int
    variant: str
    case: Case
    amount: float = 0.0
    sample: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.worker.name} {self.variant}".rstrip()

    def take_turn(self) -> None:
        answer = self.worker.ask({"do": "turn", "key": self.key, "variant": self.variant})
        if "error" in answer:
            raise ContestantError(f"{self.label}: {answer['error']}")
        self.seconds += answer["seconds"]
        self.cpu += answer["cpu"]


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: median and quartiles of all calls of all rounds; and how many CPUs the calls kept busy."""

    median: float
    lower: float
    upper: float
    calls: int
    cpus: float

    @classmethod
    def of(cls, entry: Entry) -> Timing:
        lower, median, upper = (float(q) for q in np.percentile(np.asarray(entry.seconds), (25, 50, 75)))
        return cls(median, lower, upper, len(entry.seconds), entry.cpu / sum(entry.seconds))

    @property
    def noise(self) -> float:
        """The interquartile range as a share of the median."""
        return (self.upper - self.lower) / self.median


@dataclass(frozen=True)
class Machine:
    """What the machine's loops reached during a contest: flops and bytes per second, and how many CPUs the first of
    them got: less than its threads if other programs ran."""

    peak: float
    bandwidth: float
    cpus: float


@dataclass(frozen=True)
class Outcome:
    """What a contest found.

    timings: by label, in the order of the entries.
    machine: by the number of threads.
    errors: messages by label, or by contestant.
    """

    timings: dict[str, Timing]
    machine: dict[int, Machine]
    errors: dict[str, str]


class Contest:
    """Runs cases on workers, the machine's own loops among them."""

    def __init__(self, workers: Sequence[Worker], loops: Worker, repeats: int) -> None:
        self._workers = workers
        self._loops = loops
        self._repeats = repeats
        self._keys = itertools.count()
        self._open_loops: dict[int, list[Entry]] = {}

    def run(self, case: Case) -> Outcome:
        """All workers on one case."""
        entries, errors = self._enter([(worker, case) for worker in self._workers])
        self._compare_results(entries, errors)
        return self._measure(entries, [entry.label for entry in entries], errors)

    def run_family(self, family: Family) -> Outcome:
        """pycnn on each case of the family; where it can be had with memory that is kept, as in a network that is
        planned once. Timings go by the family's labels."""
        own = [worker for worker in self._workers if worker.name.removesuffix(TUNED) == "pycnn"][-1]
        entries, errors = self._enter([(own, case) for case in family.cases])
        if errors:
            return Outcome({}, {}, errors)
        return self._measure(entries, list(family.labels), errors)

    def _enter(self, tasks: Iterable[tuple[Worker, Case]]) -> tuple[list[Entry], dict[str, str]]:
        entries: list[Entry] = []
        errors: dict[str, str] = {}
        for worker, case in tasks:
            key = next(self._keys)
            answer = worker.ask({"do": "open", "key": key, "case": case.to_json()})
            if "error" in answer:
                errors[worker.name] = answer["error"]
            for variant, found in answer.get("variants", {}).items():
                entries.append(Entry(worker, key, variant, case, found["amount"], found["sample"]))
        return entries, errors

    def _compare_results(self, entries: list[Entry], errors: dict[str, str]) -> None:
        """Whoever computes something else than the first does other work: that is an error, not a time."""
        for entry in entries[1:]:
            if not arrays.agree(entry.sample, entries[0].sample):
                errors[entry.label] = f"its result is not that of {entries[0].label}"

    def _measure(self, entries: list[Entry], labels: list[str], errors: dict[str, str]) -> Outcome:
        loops = {threads: self._machine_entries(threads) for threads in sorted({e.case.threads for e in entries})}
        alternate([*entries, *itertools.chain.from_iterable(loops.values())], self._repeats)
        for worker, key in {(id(e.worker), e.key): (e.worker, e.key) for e in entries}.values():
            worker.ask({"do": "close", "key": key})
        return Outcome(
            {label: Timing.of(e) for label, e in zip(labels, entries, strict=True) if label not in errors},
            {threads: _machine(*pair) for threads, pair in loops.items()},
            errors,
        )

    def _machine_entries(self, threads: int) -> list[Entry]:
        """The machine's loops, which stay open from case to case."""
        if threads not in self._open_loops:
            self._open_loops[threads], _ = self._enter((self._loops, case) for case in machine.cases(threads))
        return [replace(entry, seconds=[], cpu=0.0) for entry in self._open_loops[threads]]


def _machine(multiply_adds: Entry, copy: Entry) -> Machine:
    arithmetic, memory = Timing.of(multiply_adds), Timing.of(copy)
    return Machine(multiply_adds.amount / arithmetic.median, copy.amount / memory.median, arithmetic.cpus)


def alternate(entries: Sequence[Entry], rounds: int) -> None:
    """Gives each entry a turn per round, so that what else the machine does hits all alike. Each round begins one entry
    later, so that nobody always follows the same one."""
    for number in range(rounds):
        first = number % max(len(entries), 1)
        for entry in [*entries[first:], *entries[:first]]:
            entry.take_turn()
