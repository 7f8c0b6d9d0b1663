"""`pycnn bench`: pycnn beside its peers, on the same work, in one run.

    pycnn bench conv --threads 2 --filter "3x3 s1 forward"

Every installed peer takes turns with pycnn, each in a process of its own and at its best; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pycnn import cpu_info, get_num_threads
from pycnn.bench import cases, contest, engines, host, plot, report

_FORMAT = 1  # of the JSON file
_WIDTHS = {"avx512": 16, "avx2": 8, "neon": 4, "scalar": 1}  # floats in a vector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pycnn bench`; `run` takes what they are parsed into."""
    parser.add_argument(
        "suites",
        nargs="+",
        choices=cases.NAMES,
        metavar="SUITE",
        help=f"{', '.join(cases.NAMES)}; scaling (1, 2, 4, ... threads) and tails (odd channels) run pycnn alone",
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="of each contestant; default: physical cores")
    parser.add_argument("--batch", type=_positive, nargs="+", metavar="N", help="batch sizes; default: by case")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only cases whose titles (--list) contain TEXT")
    parser.add_argument(
        "--repeats", type=_positive, default=9, metavar="N", help="rounds in which all take turns; default: 9"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=engines.PEERS,
        metavar="NAME",
        help=f"of {', '.join(engines.PEERS)}; default: all that are installed",
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios into FILE (.png, .svg, .pdf); needs matplotlib")
    parser.add_argument("--list", action="store_true", help="list the cases and run nothing")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pycnn bench", description="Runs pycnn beside its peers on the same work.")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except (OSError, ValueError, ImportError) as error:
        print(f"pycnn bench: error: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Returns the exit code: 0; 1 if a contestant failed at a case or computed something else; 130 if interrupted.

    Raises:
        ValueError: no case is left to run.
        FileNotFoundError: the folder of --json or --plot is not there.
        ImportError: a peer that --peers names is not installed, or matplotlib for --plot.
        ContestantError: a contestant's process ended.
    """
    threads = args.threads or get_num_threads()
    chosen = cases.select(args.suites, args.batch, threads, args.filter)
    width = _WIDTHS[cpu_info()["isa"]]
    families = cases.select_families(args.suites, args.batch, threads, width, args.filter)
    if not chosen and not families:
        raise ValueError(f"--filter: got {args.filter!r}, which no case of {', '.join(args.suites)} contains")
    if args.list:
        for case in chosen:
            print(f"{case.title}: {case.flops / 1e9:.3f} GFLOP, {case.bytes / 1e6:.2f} MB")
        for family in families:
            print(f"{family.title}: {', '.join(family.labels)}")
        return 0

    _check_files(args)
    bench = _Bench(threads, args.repeats, _peers(args.peers) if chosen else [])
    interrupted = False
    try:
        bench.start()
        bench.run(chosen, families)
    except KeyboardInterrupt:
        interrupted = True
        print("\ninterrupted: what follows is of the cases that were run")
    finally:
        bench.stop()
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(bench.to_json(), file, indent=1)
    bench.print_summary()
    if args.plot:
        plot.save(args.plot, bench.verdicts, bench.caption())
    if interrupted:
        return 130
    return 1 if any(outcome.errors for outcome in bench.outcomes) else 0


def _check_files(args: argparse.Namespace) -> None:
    """Whatever would fail at the end of a long run fails now."""
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path and not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"{option}: there is no folder {Path(path).parent}")
    if args.plot:
        plot.figures()


def _peers(asked: list[str] | None) -> list[str]:
    """The peers to run, after a line about those that are not installed."""
    if asked is not None:
        for name in asked:
            if engines.missing(name):
                raise ImportError(f"--peers: {name} needs {', '.join(engines.missing(name))}: pip install them")
        return asked
    for name in engines.PEERS:
        if engines.missing(name):
            print(f"not installed, so left out: {name} (pip install {' '.join(engines.missing(name))})")
    return [name for name in engines.PEERS if not engines.missing(name)]


class _Bench:
    """A run of cases and families: starts the contestants, prints as results come, and keeps them."""

    def __init__(self, threads: int, repeats: int, peers: list[str]) -> None:
        self.threads = threads
        self.repeats = repeats
        self.verdicts: list[report.Verdict] = []
        self.families: list[tuple[cases.Family, contest.Outcome]] = []
        self._names = contest.contestants(["pycnn", *peers])
        self._workers: list[contest.Worker] = []
        self._stack = contextlib.ExitStack()
        self._started = time.strftime("%Y-%m-%dT%H:%M:%S%z")

    @property
    def outcomes(self) -> list[contest.Outcome]:
        return [verdict.outcome for verdict in self.verdicts] + [outcome for _, outcome in self.families]

    def start(self) -> None:
        for name in ("machine", *self._names):
            process = contest.Process(name, self.threads)
            self._stack.callback(process.stop)
            self._workers.append(process)
        for key, value in host.describe().items():
            print(f"{key}: {value}")
        print(f"threads: {self.threads}, rounds: {self.repeats}")
        for worker in self._workers:
            print(f"{worker.name}: {', '.join(f'{key} {value}' for key, value in worker.about.items())}")

    def run(self, chosen: Sequence[cases.Case], families: Sequence[cases.Family]) -> None:
        loops, *workers = self._workers
        rounds = contest.Contest(workers, loops, self.repeats)
        group = None
        for case in chosen:
            if case.group != group:
                group = case.group
                print(report.table_head(group, self._names, bool(case.flops)))
            self.verdicts.append(report.Verdict.of(case, rounds.run(case)))
            print(report.table_row(self.verdicts[-1], self._names), flush=True)
        for family in families:
            if family.group != group:
                group = family.group
                print(report.family_head(family))
            outcome = rounds.run_family(family)
            self.families.append((family, outcome))
            print(report.family_row(family, outcome), flush=True)

    def print_summary(self) -> None:
        ratios, speeds = report.ratios(self.verdicts), report.last_speeds(self.families)
        if ratios:
            print(report.group_table("pycnn against the best peer", ratios))
        if speeds:
            print(report.group_table("pycnn against itself", speeds))
        print(report.conditions(self.outcomes))

    def stop(self) -> None:
        self._stack.close()

    def caption(self) -> str:
        versions = {
            w.name.removesuffix(contest.TUNED): w.about["version"] for w in self._workers if "version" in w.about
        }
        first = f"{host.cpu_model()}, {cases.plural(self.threads, 'thread')}"
        return "\n".join([first, ", ".join(f"{name} {version}" for name, version in versions.items())])

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "started": self._started,
            "host": host.describe(),
            "threads": self.threads,
            "repeats": self.repeats,
            "contestants": {worker.name: worker.about for worker in self._workers},
            "cases": [verdict.to_json() for verdict in self.verdicts],
            "groups": [asdict(group) for group in report.summarize(report.ratios(self.verdicts))],
            "families": [report.family_json(family, outcome) for family, outcome in self.families],
        }
