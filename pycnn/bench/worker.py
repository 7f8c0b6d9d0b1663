"""The process of one contestant: `python -m pycnn.bench.worker ENGINE THREADS` answers requests, a line of JSON each.

Contestants live in processes of their own so that their thread pools, allocators and settings do not meet. One works at
a time; the others' threads sleep, since no answer is given before they do.

    {"do": "open", "key": K, "case": {...}}       -> {"variants": {name: {"amount": A, "sample": [...]}}}
    {"do": "turn", "key": K, "variant": name}     -> {"seconds": [...], "cpu": of all threads together}
    {"do": "close", "key": K}                     -> {}

The first line, before any request, is {"about": {...}}; a request that failed is answered by {"error": message}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pycnn.bench import arrays, engines
from pycnn.bench.cases import Case

TURN = 0.010  # seconds that a turn measures, at least
_MOST_CALLS = 500
_COLD = 0.050  # seconds: a longer call needs no other before it to wake threads and fill caches
_PATIENCE = 0.5


def _others_run() -> bool:
    """Whether any other thread of this process runs or wants to. Only Linux tells; elsewhere False."""
    own = str(threading.get_native_id())
    for thread in Path("/proc/self/task").glob("*"):
        try:
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended meanwhile
            continue
        if state == "R" and thread.name != own:
            return True
    return False


def fall_asleep() -> None:
    """Returns when this process's threads have stopped waiting actively for more work. Their states tell; that their
    CPU time stands still for two milliseconds does not: it is brought up to date at the system's ticks, up to ten
    apart."""
    deadline = time.perf_counter() + _PATIENCE
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.002)
        if time.process_time() - before < 0.0005 and not _others_run():
            return


@dataclass(frozen=True)
class _Ready:
    """Work to take turns with."""

    work: engines.Work
    threads: int
    warm_up: bool  # an untimed call goes ahead of each turn
    calls: int  # in a turn


class Session:
    """What a worker does, given its engine, clocks for the seconds that pass and for those that all the process's
    threads work, and how to wait until those sleep."""

    def __init__(
        self,
        engine: engines.Engine,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
        settle: Callable[[], None] = fall_asleep,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._settle = settle
        self._open: dict[int, dict[str, _Ready]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do, key = request["do"], request["key"]
        try:
            if do == "open":
                return {"variants": self._prepare(key, Case.from_json(request["case"]))}
            if do == "turn":
                return self._turn(key, request["variant"])
            if do == "close":
                del self._open[key]
                return {}
        except Exception as error:  # whatever a library throws: the contest goes on without it
            return {"error": f"{type(error).__name__}: {error}"}
        return {"error": f"unknown request {do!r}"}

    def _prepare(self, key: int, case: Case) -> dict[str, dict[str, Any]]:
        self._engine.use_threads(case.threads)
        works = self._engine.prepare(case)
        about = {}
        ready = {}
        for name, work in works.items():
            returned = work.call()
            sample = [] if work.result is None else arrays.sample(work.result(returned))
            del returned
            seconds = self._time(work)
            if seconds < _COLD:
                seconds = min(self._time(work) for _ in range(3))
            calls = max(1, min(_MOST_CALLS, round(TURN / max(seconds, 1e-9))))
            ready[name] = _Ready(work, case.threads, seconds < _COLD, calls)
            about[name] = {"amount": work.amount, "sample": sample}
        self._open[key] = ready
        self._settle()
        return about

    def _turn(self, key: int, variant: str) -> dict[str, Any]:
        ready = self._open[key][variant]
        self._engine.use_threads(ready.threads)
        gc.disable()
        try:
            if ready.warm_up:
                ready.work.call()
            before = self._cpu_clock()
            seconds = [self._time(ready.work) for _ in range(ready.calls)]
            cpu = self._cpu_clock() - before
        finally:
            gc.enable()
        self._settle()
        return {"seconds": seconds, "cpu": cpu}

    def _time(self, work: engines.Work) -> float:
        call, clock = work.call, self._clock
        start = clock()
        call()
        return clock() - start


def serve(session: Session, requests: Iterable[str], answers: TextIO) -> None:
    for line in requests:
        print(json.dumps(session.answer(json.loads(line))), file=answers, flush=True)


def main() -> None:
    engine, threads = sys.argv[1], int(sys.argv[2])
    # What libraries print goes to the standard error; the answers keep the pipe to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    created = engines.create(engine, threads)
    print(json.dumps({"about": created.describe()}), file=answers, flush=True)
    serve(Session(created), sys.stdin, answers)


if __name__ == "__main__":
    main()
