"""Whether others had the CPUs, from counters that are put in place; nothing here looks at this machine but the last."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glimmer_export.exporter.bench.load import CpuCounts, LoadWatch, counts_from_stat, read_counts

QUIET = CpuCounts(clock=0.0, cpus=2, busy=0.0, stolen=0.0, own=0.0)
"""Two CPUs that do nothing."""
STAT = """\
cpu  1000 20 300 9000 50 7 3 40 600 0
cpu0 600 20 100 4000 20 5 1 30 600 0
cpu1 400 0 200 5000 30 2 2 10 0 0
intr 12345 0 9
ctxt 99
"""


def watched(*spans: tuple[str, CpuCounts, CpuCounts]) -> LoadWatch:
    """A watch that has seen what lies between these readings, each under its name."""
    readings = [reading for _, *pair in spans for reading in pair]
    watch = LoadWatch(lambda: readings.pop(0))
    for name, *_ in spans:
        with watch.during(name):
            pass
    return watch


def after(seconds: float, **counts: float) -> CpuCounts:
    return replace(QUIET, clock=seconds, **counts)


def verdict(watch: LoadWatch, load_average: float | None = 0.0, cpus: int = 2, threads: int = 2):
    return watch.load(load_average, cpus=cpus, threads=threads)


def test_ones_own_threads_are_no_load():
    load = verdict(watched(("ours", QUIET, after(10, busy=20.0, own=19.9))), load_average=12.0)
    assert load.worthless is False
    assert load.sentence == ""
    assert load.to_json()["foreign_share"] == pytest.approx(0.005)


def test_another_process_is_named_with_the_contender_that_it_slanders():
    load = verdict(watched(
        ("ours", QUIET, after(10, busy=20.0, own=20.0)),
        ("hf_fid_k5", after(10, busy=20.0, own=20.0), after(20, busy=39.0, own=32.0)),
    ))  # fmt: skip
    assert load.worthless is True
    assert load.reasons == ("other processes had 35.0% of the CPUs during hf_fid_k5",)
    assert load.sentence.startswith("These times are worthless: other processes had 35.0% of the CPUs during hf_fid_k5")
    assert load.to_json()["spans"]["hf_fid_k5"]["foreign_seconds"] == pytest.approx(7.0)


def test_spans_of_one_name_add_up():
    load = verdict(watched(
        ("ours", QUIET, after(10, busy=10.0, own=10.0)),
        ("ours", after(10, busy=10.0, own=10.0), after(20, busy=24.0, own=20.0)),
    ))  # fmt: skip
    assert load.spans["ours"].foreign_share == pytest.approx(4 / 40)
    assert load.worthless is True


def test_a_little_is_what_every_system_does():
    for foreign, worthless in ((0.9, False), (1.5, True)):
        load = verdict(watched(("ours", QUIET, after(10, busy=10.0 + foreign, own=10.0))))
        assert load.worthless is worthless, foreign


def test_less_than_the_counters_resolve_is_nothing():
    assert verdict(watched(("ours", QUIET, after(0.1, busy=0.09, own=0.0)))).worthless is False


@pytest.mark.parametrize(("threads", "worthless"), [(64, True), (63, False), (2, False)])
def test_a_process_on_a_cpu_that_nobody_wants_is_no_load(threads, worthless):
    many = replace(QUIET, cpus=64)
    ended = replace(many, clock=10.0, busy=10.0 * threads + 10.0, own=10.0 * threads)
    assert verdict(watched(("ours", many, ended)), cpus=64, threads=threads).worthless is worthless


def test_stolen_time():
    load = verdict(watched(("int8", QUIET, after(10, busy=18.0, own=18.0, stolen=2.0))))
    assert load.worthless is True
    assert load.reasons == ("the hypervisor took 10.0% of the CPUs during int8 (steal)",)
    assert load.to_json()["steal_share"] == pytest.approx(0.1)
    assert verdict(watched(("int8", QUIET, after(10, busy=18.0, own=18.0, stolen=0.3)))).worthless is False


@pytest.mark.parametrize(
    ("load_average", "worthless", "said"),
    [
        (0.3, None, "Nobody can tell whether this machine was quiet: there is no /proc/stat here; the load average"),
        (6.1, True, "the load average was 6.10 on 2 CPUs before anything was measured"),
        (None, None, "there is no /proc/stat here, and no load average"),
    ],
)
def test_without_proc_the_load_average_is_all_there_is(load_average, worthless, said):
    """As on macOS."""
    watch = LoadWatch(lambda: read_counts(Path("/nowhere/stat")))
    with watch.during("ours"):
        pass
    load = verdict(watch, load_average)
    assert load.worthless is worthless
    assert said in load.sentence
    assert json.loads(json.dumps(load.to_json()))["foreign_share"] is None


def test_counters_that_stand_still_are_none():
    """In a sandbox that has the file and no figures."""
    load = verdict(watched(("ours", QUIET, after(10, own=19.0))))
    assert load.worthless is None
    assert "/proc/stat does not count what the CPUs do here" in load.sentence


def test_proc_stat():
    assert counts_from_stat(STAT, {0, 1}, ticks_per_second=100) == (2, 13.3, 0.4)
    assert counts_from_stat(STAT, {1}, ticks_per_second=100) == (1, 6.04, 0.1)
    assert counts_from_stat(STAT, {1, 7}, ticks_per_second=100) == (1, 6.04, 0.1)
    assert counts_from_stat("cpu0 5 0 5 90\n", {0}, ticks_per_second=10) == (1, 1.0, 0.0)  # before Linux 2.5.41


@pytest.mark.parametrize("stat", ["", "cpu  1 2 3 4\n", "cpu0 1 2\n", "cpu0 a b c d\n", "cpuidle 1 2 3 4\n", "\x00\n"])
def test_a_file_without_the_counters(stat):
    assert counts_from_stat(stat, {0, 1}, ticks_per_second=100) is None


@pytest.mark.skipif(read_counts() is None, reason="no /proc/stat here")
def test_a_process_that_computes_is_seen():
    """Its time is not ours; whatever else runs here can but add to it."""
    watch = LoadWatch()
    with watch.during("nothing"):
        subprocess.run(
            [sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True, timeout=60
        )
    span = watch.load(None, cpus=1, threads=1).spans["nothing"]
    assert span.foreign_seconds > 0.7
    assert span.own_seconds < 0.3
