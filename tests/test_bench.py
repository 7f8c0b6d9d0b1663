"""The benchmark harness: who works when, what is compared with what, and that all contestants do the same work.

Nothing here depends on how fast anything is: arithmetic is checked with made-up contestants and clocks.
"""

import hashlib
import itertools
import json
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from pycnn import bench
from pycnn.bench import arrays, cases, contest, engines, report, worker
from pycnn.bench.contest import Machine, Outcome, Timing

ANY_CASE = cases.conv_case((8, 6, 8, 3, 1, 1), 2, cases.FORWARD)


# ---- cases -----------------------------------------------------------------------------------------------------------


def all_cases():
    return cases.select(["all"], None, 1, "")


def test_titles_tell_cases_apart():
    titles = [case.title for case in all_cases()] + [
        family.title for family in cases.select_families(["all"], None, 4, 8, "")
    ]
    assert len(set(titles)) == len(titles)


def test_cases_of_a_group_stand_together():
    groups = [(case.suite, case.group) for case in all_cases()]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes + 1 == len(set(groups))


def test_flops_and_bytes_of_a_convolution():
    case = cases.conv_case((6, 9, 4, 3, 2, 2), 5, cases.FORWARD)  # 9x9 -> 5x5, 3 channels of each group
    assert case.flops == 2 * (5 * 4 * 5 * 5) * (3 * 3 * 3)
    assert case.bytes == 4 * (5 * 6 * 9 * 9 + 5 * 4 * 5 * 5 + 4 * 3 * 3 * 3)


def test_a_case_survives_json():
    for case in all_cases():
        assert cases.Case.from_json(json.loads(json.dumps(case.to_json()))) == case


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (6, [1, 2, 4, 6])]
)
def test_thread_counts(most, counts):
    assert cases.thread_counts(most) == counts


def test_tails_compare_with_whole_vectors():
    for family in cases.tails_families([2], 1, 8):
        rounded, odd = (case.shape[1] for case in family.cases)
        assert rounded % 8 == 0 and odd % 8 != 0 and 0 < rounded - odd < 8
        assert rounded == family.cases[0].options["oc"]


# ---- a worker's session ----------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Engine:
    """Work that takes given seconds of a clock."""

    def __init__(self, clock, durations):
        self.clock, self.durations = clock, durations
        self.calls = 0
        self.threads = []

    def describe(self):
        return {}

    def use_threads(self, threads):
        self.threads.append(threads)

    def prepare(self, case):
        def work(seconds):
            def call():
                self.calls += 1
                self.clock.now += seconds
                return np.full(case.shape, seconds, np.float32)

            return engines.Work(call, lambda result: result)

        return {name: work(seconds) for name, seconds in self.durations.items()}


def open_session(durations):
    clock = Clock()
    engine = Engine(clock, durations)
    session = worker.Session(engine, clock, clock, settle=lambda: None)
    return session, engine, session.answer({"do": "open", "key": 3, "case": ANY_CASE.to_json()})


def test_a_turn_lasts_long_enough_and_is_preceded_by_an_untimed_call():
    session, engine, answer = open_session({"a": 0.002})
    assert set(answer["variants"]) == {"a"}
    before = engine.calls
    turn = session.answer({"do": "turn", "key": 3, "variant": "a"})
    assert turn["seconds"] == pytest.approx([0.002] * 5) and turn["cpu"] == pytest.approx(0.01)
    assert engine.calls - before == 6
    assert set(engine.threads) == {ANY_CASE.threads}


def test_a_long_call_is_a_turn_of_its_own():
    session, engine, _ = open_session({"a": 0.3})
    before = engine.calls
    assert session.answer({"do": "turn", "key": 3, "variant": "a"})["seconds"] == pytest.approx([0.3])
    assert engine.calls - before == 1


def test_a_session_answers_what_went_wrong():
    session, _, _ = open_session({"a": 0.01})
    assert "unknown request 'leap'" in session.answer({"do": "leap", "key": 3})["error"]
    assert session.answer({"do": "close", "key": 3}) == {}
    assert "KeyError" in session.answer({"do": "turn", "key": 3, "variant": "a"})["error"]


# ---- the contest -----------------------------------------------------------------------------------------------------


class Contestant:
    """Answers as a worker does; each call takes the next of its seconds."""

    about: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, name, seconds, log=None, sample=(1.0, 2.0), amount=0.0):
        self.name, self.seconds, self.sample, self.amount = name, seconds, list(sample), amount
        self.log = [] if log is None else log
        self.open = set()

    def ask(self, request):
        if request["do"] == "open":
            self.open.add(request["key"])
            return {"variants": {v: {"amount": self.amount, "sample": self.sample} for v in self.seconds}}
        if request["do"] == "close":
            self.open.remove(request["key"])
            return {}
        self.log.append(f"{self.name} {request['variant']}".rstrip())
        seconds = self.seconds[request["variant"]]
        return {"seconds": [seconds, seconds], "cpu": 2 * seconds}

    def stop(self):
        raise NotImplementedError


def loops():
    return Contestant("machine", {"": 0.5}, amount=100.0)


def test_everybody_takes_one_turn_per_round_and_begins_once():
    log = []
    workers = [Contestant("pycnn", {"": 1.0}, log), Contestant("torch", {"nchw": 2.0, "channels_last": 3.0}, log)]
    machine = Contestant("machine", {"": 0.5}, log, amount=100.0)
    outcome = contest.Contest(workers, machine, repeats=5).run(ANY_CASE)
    order = ["pycnn", "torch nchw", "torch channels_last", "machine", "machine"]
    rounds = [log[first : first + 5] for first in range(0, 25, 5)]
    assert rounds == [order[n:] + order[:n] for n in range(5)]
    assert {label: timing.calls for label, timing in outcome.timings.items()} == dict.fromkeys(order[:3], 10)
    assert outcome.machine == {1: Machine(peak=200.0, bandwidth=200.0, cpus=1.0)}
    assert not any(who.open for who in workers)


def test_whoever_computes_something_else_does_not_count():
    workers = [Contestant("pycnn", {"": 1.0}), Contestant("torch", {"nchw": 0.1}, sample=(1.0, 2.01))]
    outcome = contest.Contest(workers, loops(), repeats=1).run(ANY_CASE)
    assert list(outcome.timings) == ["pycnn"]
    assert outcome.errors == {"torch nchw": "its result is not that of pycnn"}


def test_a_family_is_run_by_pycnn_alone_on_memory_that_is_kept():
    log = []
    workers = [Contestant(name, {"": 1.0}, log) for name in ("pycnn", "pycnn+malloc", "torch")]
    case = replace(ANY_CASE, threads=1)
    family = cases.Family("scaling", "group", "name", (case, replace(case, threads=2)), ("1 thread", "2 threads"))
    outcome = contest.Contest(workers, loops(), repeats=2).run_family(family)
    assert log == ["pycnn+malloc"] * 4
    assert list(outcome.timings) == ["1 thread", "2 threads"] and list(outcome.machine) == [1, 2]


def test_samples_agree_up_to_rounding_and_never_with_nan():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    assert arrays.agree(arrays.sample(arrays.channels_last(x)), arrays.sample(x))
    assert arrays.agree(arrays.sample(x + np.float32(1e-6)), arrays.sample(x))
    assert not arrays.agree(arrays.sample(-x), arrays.sample(x))
    assert not arrays.agree(arrays.sample(x.transpose(0, 1, 3, 2)), arrays.sample(x))
    broken = x.copy()
    broken[0, 0, 0, 0] = np.nan
    assert not arrays.agree(arrays.sample(broken), arrays.sample(broken))


# ---- verdicts --------------------------------------------------------------------------------------------------------


def timing(seconds, noise=0.0):
    return Timing(seconds, seconds * (1 - noise / 2), seconds * (1 + noise / 2), 10, 1.0)


def verdict(timings, case=ANY_CASE):
    machine = {case.threads: Machine(peak=1e9, bandwidth=1e8, cpus=1.0)}
    return report.Verdict.of(case, Outcome(timings, machine, {}))


def test_timing_is_median_and_quartiles():
    entry = contest.Entry(loops(), 0, "", ANY_CASE, seconds=[5.0, 1.0, 2.0, 3.0, 4.0], cpu=30.0)
    assert Timing.of(entry) == Timing(median=3.0, lower=2.0, upper=4.0, calls=5, cpus=2.0)
    assert Timing.of(entry).noise == pytest.approx(2 / 3)


def test_the_ratio_is_of_the_best_peer_to_the_best_of_pycnn():
    found = verdict(
        {
            "pycnn": timing(2.0),
            "pycnn+malloc": timing(1.5, noise=0.1),
            "torch nchw": timing(9.0),
            "torch+malloc channels_last": timing(3.0, noise=0.3),
            "onnxruntime blocked": timing(4.0, noise=0.9),
        }
    )
    assert (found.ours, found.peer) == ("pycnn+malloc", "torch+malloc channels_last")
    assert found.ratio == pytest.approx(3.0 / 1.5)
    assert found.noise == pytest.approx(0.3)
    assert found.rate("pycnn") == ANY_CASE.flops / 2.0
    assert found.share("pycnn") == pytest.approx(ANY_CASE.flops / 2.0 / 1e9)
    assert found.best_of("torch").median == 9.0
    row = report.table_row(found, ["pycnn", "pycnn+malloc", "torch", "torch+malloc", "onnxruntime", "openvino"])
    columns = row[len(ANY_CASE.name) :].split()
    assert columns[:6] == ["2000.0", "1500.0*", "9000.0", "3000.0*", "4000.0", "-"]
    assert columns[-2:] == ["2.00", "30%"]


def test_memory_is_measured_by_the_copy():
    case = replace(ANY_CASE, flops=0.0, bytes=5e7)
    found = verdict({"pycnn": timing(1.0)}, case)
    assert found.rate("pycnn") == 5e7 and found.share("pycnn") == pytest.approx(0.5)


def test_without_a_peer_there_is_no_ratio():
    found = verdict({"pycnn": timing(2.0)})
    assert found.peer is None and found.ratio is None
    assert report.ratios([found]) == []
    assert json.loads(json.dumps(found.to_json()))["ratio"] is None


def test_groups_take_the_median_of_ratios():
    def of(ratio, group):
        return verdict({"pycnn": timing(1.0), "torch": timing(ratio)}, replace(ANY_CASE, group=group))

    found = report.summarize(report.ratios([of(1.0, "a"), of(5.0, "b"), of(4.0, "a"), of(2.0, "a")]))
    assert found == [report.Group("a", 2.0, 1.0, 4.0, 3), report.Group("b", 5.0, 5.0, 5.0, 1)]
    lines = report.group_table("title", [("a", 1.0), ("a", 3.0)]).splitlines()
    assert lines[-1].split() == ["a", "2.00", "1.00", "3.00", "2"]


def test_families_are_measured_by_their_first_case():
    one, two = replace(ANY_CASE, threads=1), replace(ANY_CASE, threads=2)
    family = cases.Family("scaling", "group", "name", (one, two), ("1 thread", "2 threads"))
    machine = {1: Machine(1e9, 1e8, 1.0), 2: Machine(1.9e9, 1.3e8, 2.0)}
    outcome = Outcome({"1 thread": timing(3.0), "2 threads": timing(2.0)}, machine, {})
    assert report.family_speeds(family, outcome) == {"1 thread": 1.0, "2 threads": 1.5}
    row = report.family_row(family, outcome)
    assert "2 threads 1.50x" in row and "multiply-adds 1.90x copy 1.30x" in row
    assert report.last_speeds([(family, outcome)]) == [("scaling: group", 1.5)]
    assert report.family_json(family, outcome)["results"][1]["speed"] == 1.5


def test_a_busy_machine_is_pointed_out():
    def said(cpus):
        return report.conditions([Outcome({}, {2: Machine(1e9, 1e8, cpus)}, {})])

    assert "do not trust" in said(1.2) and "do not trust" not in said(1.99)


# ---- real contestants ------------------------------------------------------------------------------------------------


def tiny(case):
    """The same operation on a shape that takes no time; two images and odd channels where the operation allows."""
    options = dict(case.options)
    if case.op == "conv":
        depthwise = options["groups"] > 1
        c = 5 if depthwise else min(case.shape[1], 6)
        options |= {"oc": c if depthwise else 7, "groups": c if depthwise else 1}
        # Of 10x10 images, PyTorch 2.13 with AVX2 writes beyond its buffer: the gradient of the weights of a strided 1x1
        # convolution of six channels-last channels, whose last column no window reaches.
        return replace(case, shape=(2, c, 11, 11), options=options)
    if case.op == "network":
        return replace(case, shape=(2, *case.shape[1:]))
    if len(case.shape) == 4:
        return replace(case, shape=(2, 32 if case.op == "group_norm" else 5, 8, 8))
    return replace(case, shape=(3, 6, 16) if len(case.shape) == 3 else tuple(min(size, 7) for size in case.shape))


def tiny_cases():
    """One of each operation, direction and set of options, of all suites; of networks the small ones."""
    found = {}
    for case in map(tiny, all_cases()):
        if case.options.get("network") not in (None, "resnet20_cifar", "mnist_cnn"):
            continue
        found.setdefault((case.op, case.direction, json.dumps(case.options)), case)
    return list(found.values())


def test_tiny_cases_cover_every_operation():
    assert {(case.op, case.direction) for case in tiny_cases()} == {(case.op, case.direction) for case in all_cases()}


@pytest.fixture(scope="module")
def own_workers():
    started = [contest.Process(name, 1) for name in ("pycnn", "machine")]
    yield started
    for process in started:
        process.stop()


def agreement(workers, loops):
    """Runs all tiny cases; returns the labels that took part in each and what went wrong."""
    rounds = contest.Contest(workers, loops, repeats=1)
    outcomes = {f"{case.title} {case.shape}": rounds.run(case) for case in tiny_cases()}
    errors = {title: outcome.errors for title, outcome in outcomes.items() if outcome.errors}
    return {title: list(outcome.timings) for title, outcome in outcomes.items()}, errors


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what threads do")
def test_a_turn_does_not_end_while_threads_wait_actively():
    """A thread that computes without the interpreter's lock stands for one of a pool."""
    started, ended = threading.Event(), []

    def spin():
        started.set()
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 300_000)
        ended.append(time.perf_counter())

    thread = threading.Thread(target=spin)
    thread.start()
    started.wait()
    worker.fall_asleep()
    settled = time.perf_counter()
    thread.join()
    assert settled >= ended[0]


@pytest.mark.parametrize("name", engines.PEERS)
def test_a_peer_computes_what_pycnn_computes(name, own_workers):
    if engines.missing(name):
        pytest.skip(f"{name} is not installed")
    pycnn_worker, machine = own_workers
    peer = contest.Process(name, 1)
    try:
        took_part, errors = agreement([pycnn_worker, peer], machine)
    finally:
        peer.stop()
    assert errors == {}
    # PyTorch has every operation in both directions, the others have the inference operations.
    lacking = [title for title, labels in took_part.items() if len(labels) < 2]
    expected = [] if name == "torch" else [t for t in took_part if "backward" in t or "update" in t or "training" in t]
    assert lacking == expected


def test_pycnn_runs_every_case_alone(own_workers):
    took_part, errors = agreement(own_workers[:1], own_workers[1])
    assert errors == {} and set(map(tuple, took_part.values())) == {("pycnn",)}


def test_results_are_real_numbers(own_workers):
    """A sample of zeros would agree with anything that does nothing."""
    pycnn_worker, _ = own_workers
    for key, case in enumerate(tiny_cases()):
        [found] = pycnn_worker.ask({"do": "open", "key": key, "case": case.to_json()})["variants"].values()
        assert np.isfinite(found["sample"]).all() and np.abs(found["sample"]).max() > 1e-4, case.title
        pycnn_worker.ask({"do": "close", "key": key})


def test_the_machine_does_what_it_counts(own_workers):
    from pycnn import _core, set_num_threads
    from pycnn.parameter import aligned_zeros

    src, dst = (aligned_zeros(70_016, np.dtype(np.float32)) for _ in range(2))
    src[:] = np.arange(src.size)
    _core.run_copy(src, dst)
    np.testing.assert_array_equal(dst, src)
    for wrong in ((src, dst[:32]), (src[16:31], dst[16:31]), (src[1:17], dst[:16]), (src[:16], dst[1:17])):
        with pytest.raises(ValueError, match="dst: expected aligned arrays of one length"):
            _core.run_copy(*wrong)
    set_num_threads(1)
    single = _core.run_multiply_adds()
    set_num_threads(2)
    assert _core.run_multiply_adds() == 2 * single > 0


def test_a_dead_process_is_reported():
    process = contest.Process("pycnn", 1)
    process._process.kill()
    with pytest.raises(contest.ContestantError, match="pycnn: its process ended with code -9"):
        process.ask({"do": "close", "key": 0})
    process.stop()
    with pytest.raises(contest.ContestantError, match="nobody"):
        contest.Process("nobody", 1)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_suite(monkeypatch):
    conv = [tiny(cases.conv_case(g, 2, d)) for g in cases.MOBILENET[1:3] for d in cases.CONV_DIRECTIONS]
    monkeypatch.setattr(cases, "SUITES", {"conv": lambda batches: conv})
    families = [cases.Family("scaling", "g", "n", tuple(replace(conv[0], threads=t) for t in (1, 2)), ("1", "2"))]
    monkeypatch.setattr(cases, "select_families", lambda *_: families)
    return conv


def test_the_command_writes_a_table_and_json(tiny_suite, tmp_path, capsys):
    path = tmp_path / "results.json"
    peers = [] if engines.missing("torch") else ["torch"]
    arguments = ["conv", "--threads", "1", "--repeats", "2", "--json", str(path), "--peers", *peers]
    assert bench.main(arguments) == 0
    text = capsys.readouterr().out
    assert all(
        word in text for word in ("cpu: ", "isa ", "threads: 1", "GFLOP/s", "noise", "multiply-adds", "scaling: g")
    )
    found = json.loads(path.read_text())
    assert found["threads"] == 1 and found["repeats"] == 2
    assert [case["name"] for case in found["cases"]] == [case.name for case in cases.select(["conv"], None, 1, "")]
    assert {"machine", "pycnn"} <= set(found["contestants"])
    for case in found["cases"]:
        by_label = {f"{r['contestant']} {r['variant']}".rstrip(): r for r in case["results"]}
        assert case["name"] in text and by_label[case["ours"]]["median"] > 0
        if peers:
            peer, ours = by_label[case["best_peer"]], by_label[case["ours"]]
            assert case["ratio"] == pytest.approx(peer["median"] / ours["median"])
            assert peer["median"] == min(r["median"] for r in by_label.values() if "torch" in r["contestant"])
        for result in by_label.values():
            assert result["lower"] <= result["median"] <= result["upper"]
            assert result["rate"] == pytest.approx(case["flops"] / result["median"])
            assert result["share"] == pytest.approx(result["rate"] / case["machine"][0]["peak"])
    assert len(found["groups"]) == (len({case["group"] for case in found["cases"]}) if peers else 0)
    [family] = found["families"]
    assert family["results"][0]["speed"] == 1.0


def test_the_command_lists_cases_and_runs_nothing(capsys):
    assert (
        bench.main(["conv", "scaling", "--list", "--filter", "64-64 3X3 S1 56x56", "--batch", "3", "--threads", "2"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "conv: 3x3 s1 forward: 64-64 3x3 s1 56x56 n3: 0.694 GFLOP, 4.96 MB"
    assert lines[-1].endswith("1 thread, 2 threads") and len(lines) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["conv", "--filter", "no such thing"], "--filter: got 'no such thing'"),
        (["conv", "--json", "/no/such/folder/file"], "--json: there is no folder /no/such/folder"),
        (["conv", "--plot", "/no/such/folder/file"], "--plot: there is no folder /no/such/folder"),
    ],
)
def test_the_command_refuses_before_it_runs(arguments, words, capsys):
    assert bench.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_peer_that_is_asked_for_must_be_installed(monkeypatch, capsys):
    monkeypatch.setattr(engines, "missing", lambda name: ["torch"])
    assert bench.main(["conv", "--peers", "torch"]) == 2
    assert "--peers: torch needs torch" in capsys.readouterr().err


def test_the_plot_shows_every_group(tmp_path):
    pytest.importorskip("matplotlib")
    from pycnn.bench import plot

    found = [
        verdict({"pycnn": timing(1.0), "torch": timing(ratio)}, replace(ANY_CASE, group=group))
        for group, ratio in (("first group", 0.5), ("first group", 1.5), ("second group", 2.0))
    ]
    path = tmp_path / "plot.svg"
    plot.save(str(path), found, "caption")
    assert path.stat().st_size > 1000
    with pytest.raises(ValueError, match="no ratio"):
        plot.save(str(path), [verdict({"pycnn": timing(1.0)})], "caption")
