"""From timings to verdicts: rates, shares, ratios, tables, JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pycnn.bench.cases import Case, Family, plural
from pycnn.bench.contest import TUNED, Outcome, Timing

_OURS = "pycnn"
_QUIET = 0.95  # of the CPUs that it asks for, a loop in registers gets when nothing else runs


def contestant(label: str) -> str:
    """'torch+malloc' of 'torch+malloc channels_last'."""
    return label.partition(" ")[0]


def is_ours(label: str) -> bool:
    return contestant(label).partition("+")[0] == _OURS


@dataclass(frozen=True)
class Verdict:
    """A case and who was how fast. Every library is taken at its best, pycnn and its peers alike.

    ours, peer: the labels with the lowest medians, None where nobody ran.
    """

    case: Case
    outcome: Outcome
    ours: str | None
    peer: str | None

    @classmethod
    def of(cls, case: Case, outcome: Outcome) -> Verdict:
        return cls(case, outcome, _fastest(outcome, True), _fastest(outcome, False))

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best peer pycnn is: the quotient of the medians."""
        if self.ours is None or self.peer is None:
            return None
        return self.outcome.timings[self.peer].median / self.outcome.timings[self.ours].median

    @property
    def noise(self) -> float:
        """The larger interquartile range of the two that are compared, as a share of its median."""
        labels = [label for label in (self.ours, self.peer) if label is not None]
        return max((self.outcome.timings[label].noise for label in labels), default=0.0)

    def rate(self, label: str) -> float:
        """Effective flops per second, or bytes per second where the case counts bytes."""
        return (self.case.flops or self.case.bytes) / self.outcome.timings[label].median

    def share(self, label: str) -> float:
        """Of the measured multiply-add peak, or of the measured bandwidth of a copy."""
        machine = self.outcome.machine[self.case.threads]
        return self.rate(label) / (machine.peak if self.case.flops else machine.bandwidth)

    def best_of(self, name: str) -> Timing | None:
        """A contestant's best variant."""
        timings = [timing for label, timing in self.outcome.timings.items() if contestant(label) == name]
        return min(timings, key=lambda timing: timing.median, default=None)

    def to_json(self) -> dict[str, Any]:
        results = [
            {
                "contestant": contestant(label),
                "variant": label.partition(" ")[2],
                **asdict(timing),
                "rate": self.rate(label),
                "share": self.share(label),
            }
            for label, timing in self.outcome.timings.items()
        ]
        return {
            **self.case.to_json(),
            **_machine_json(self.outcome),
            "results": results,
            "ours": self.ours,
            "best_peer": self.peer,
            "ratio": self.ratio,
            "errors": self.outcome.errors,
        }


def _fastest(outcome: Outcome, ours: bool) -> str | None:
    labels = [label for label in outcome.timings if is_ours(label) == ours]
    return min(labels, key=lambda label: outcome.timings[label].median, default=None)


def _machine_json(outcome: Outcome) -> dict[str, Any]:
    return {"machine": [{"threads": threads, **asdict(machine)} for threads, machine in outcome.machine.items()]}


# ---- tables ----------------------------------------------------------------------------------------------------------

_NAME = 32
_SHORT = {"onnxruntime": "onnxrt"}


def table_head(group: str, names: Sequence[str], flops: bool) -> str:
    """A tuned contestant's column follows that of the same library untuned, and is named for the tuning alone."""
    heads = [TUNED if name.endswith(TUNED) else _SHORT.get(name, name) for name in names]
    unit = "GFLOP/s   peak" if flops else "   GB/s   copy"
    return f"\n{group}\n{'milliseconds':>{_NAME}}{''.join(f'{head:>10}' for head in heads)}  {unit}  ratio  noise"


def table_row(verdict: Verdict, names: Sequence[str]) -> str:
    """Milliseconds of each contestant, '-' for one that has no such operation, '*' behind the two that are compared:
    pycnn at its best and the best peer. Then pycnn's rate and share, its speed as a multiple of that peer's, and the
    noise of both."""
    compared = [contestant(label) for label in (verdict.ours, verdict.peer) if label is not None]
    columns = ""
    for name in names:
        timing = verdict.best_of(name)
        columns += f"{'-' if timing is None else milliseconds(timing.median):>9}{'*' if name in compared else ' '}"
    if verdict.ours is None:
        rate = f"{'-':>9}{'-':>7}"
    else:
        rate = f"{verdict.rate(verdict.ours) / 1e9:9.1f}{verdict.share(verdict.ours):7.0%}"
    ratio = f"{'-':>7}" if verdict.ratio is None else f"{verdict.ratio:7.2f}"
    row = f"{verdict.case.name:<{_NAME}}{columns}{rate}{ratio}{verdict.noise:7.0%}"
    return "\n".join([row, *error_lines(verdict.outcome)])


def family_head(family: Family) -> str:
    columns = f"{'first':>9}  speed of the others"
    return f"\n{family.suite}: {family.group}\n{'milliseconds':>{_NAME}}{columns}"


def family_row(family: Family, outcome: Outcome) -> str:
    """Milliseconds of the first case, the others' speed as a multiple of the first's, the last one's shares of peak and
    bandwidth, how the machine's own loops gain from the threads, and the larger noise."""
    if outcome.errors:
        return "\n".join([family.name, *error_lines(outcome)])
    speeds = family_speeds(family, outcome)
    last = family.cases[-1]
    start, end = outcome.machine[family.cases[0].threads], outcome.machine[last.threads]
    seconds = outcome.timings[family.labels[-1]].median
    row = f"{family.name:<{_NAME}}{milliseconds(outcome.timings[family.labels[0]].median):>9}"
    for label in family.labels[1:]:
        row += f"  {label} {speeds[label]:.2f}x"
    row += f"  {last.flops / seconds / end.peak:.0%} of peak {last.bytes / seconds / end.bandwidth:.0%} of copy"
    if start is not end:
        gain = f"multiply-adds {end.peak / start.peak:.2f}x copy {end.bandwidth / start.bandwidth:.2f}x"
        row += f"  loops: {gain}"
    return f"{row}  noise {max(timing.noise for timing in outcome.timings.values()):.0%}"


def family_speeds(family: Family, outcome: Outcome) -> dict[str, float]:
    """By label: speed as a multiple of the first case's."""
    if outcome.errors:
        return {}
    first = outcome.timings[family.labels[0]].median
    return {label: first / outcome.timings[label].median for label in family.labels}


def family_json(family: Family, outcome: Outcome) -> dict[str, Any]:
    speeds = family_speeds(family, outcome)
    results = [
        {"label": label, "case": case.to_json(), **asdict(outcome.timings[label]), "speed": speeds[label]}
        for label, case in zip(family.labels, family.cases, strict=True)
        if label in speeds
    ]
    head = {"suite": family.suite, "group": family.group, "name": family.name}
    return {**head, **_machine_json(outcome), "results": results, "errors": outcome.errors}


def error_lines(outcome: Outcome) -> Iterator[str]:
    for label, message in outcome.errors.items():
        yield f"  ! {label}: {message}"


def milliseconds(seconds: float) -> str:
    """Three digits at least."""
    number = seconds * 1e3
    return f"{number:.4f}" if number < 1 else (f"{number:.3f}" if number < 100 else f"{number:.1f}")


# ---- summaries -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Ratios of a group's cases: their median, the lowest and the highest, and how many there are."""

    name: str
    median: float
    lowest: float
    highest: float
    count: int


Named = Iterable[tuple[str, float]]  # (group, ratio)


def ratios(verdicts: Iterable[Verdict]) -> list[tuple[str, float]]:
    """Against the best peer; cases without one do not count."""
    return [(verdict.case.group, verdict.ratio) for verdict in verdicts if verdict.ratio is not None]


def last_speeds(families: Iterable[tuple[Family, Outcome]]) -> list[tuple[str, float]]:
    """Of each family's last case, measured by its first."""
    return [
        (f"{family.suite}: {family.group}", family_speeds(family, outcome)[family.labels[-1]])
        for family, outcome in families
        if not outcome.errors
    ]


def grouped(named: Named) -> dict[str, list[float]]:
    """In the order in which groups come."""
    groups: dict[str, list[float]] = {}
    for name, ratio in named:
        groups.setdefault(name, []).append(ratio)
    return groups


def summarize(named: Named) -> list[Group]:
    return [Group(name, statistics.median(r), min(r), max(r), len(r)) for name, r in grouped(named).items()]


def group_table(title: str, named: Named) -> str:
    head = f"\n{title:<48}{'median':>8}{'lowest':>8}{'highest':>9}{'shapes':>8}"
    rows = [f"{g.name:<48}{g.median:8.2f}{g.lowest:8.2f}{g.highest:9.2f}{g.count:8}" for g in summarize(named)]
    return "\n".join([head, *rows])


def conditions(outcomes: Sequence[Outcome]) -> str:
    """What the machine gave during the contests, and how steadily."""
    lines = [""]
    for threads in sorted({threads for outcome in outcomes for threads in outcome.machine}):
        machines = [outcome.machine[threads] for outcome in outcomes if threads in outcome.machine]
        cpus = statistics.median(machine.cpus for machine in machines)
        lines.append(
            f"machine, {plural(threads, 'thread')}: "
            f"multiply-adds {spread([machine.peak / 1e9 for machine in machines])} GFLOP/s on {cpus:.1f} CPUs, "
            f"copy {spread([machine.bandwidth / 1e9 for machine in machines])} GB/s"
        )
        if cpus < _QUIET * threads:
            lines.append("  other programs, or a system that packs threads, took CPUs away: do not trust these figures")
    noise = [timing.noise for outcome in outcomes for timing in outcome.timings.values()]
    if noise:
        lines.append(
            f"noise (interquartile range / median): half of all timings below {statistics.median(noise):.0%}, "
            f"the worst {max(noise):.0%}"
        )
    wrong = sum(len(outcome.errors) for outcome in outcomes)
    if wrong:
        lines.append(f"errors: {wrong}, see the lines with '!'")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
