"""How many threads run a graph: no more than there are cores, one for a small model, and none that spins for long."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime
import pytest

from glimmer_export.runtime.backends import OnnxRuntimeBackend, threads
from glimmer_export.runtime.contract import read_manifest


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Puts a machine in place: CPUs with what shares their core, those of this process, and files of control groups."""
    for name in ("CPU", "GROUPS"):
        monkeypatch.setattr(threads, name, tmp_path / name)
    monkeypatch.setattr(threads, "OWN_GROUP", tmp_path / "own")

    def put(siblings: list[str], allowed: set[int], group: str = "", files: dict[str, str] | None = None) -> None:
        for cpu, shared in enumerate(siblings):
            write(tmp_path / "CPU" / f"cpu{cpu}" / "topology" / "thread_siblings_list", shared)
        write(tmp_path / "own", group)
        for name, content in (files or {}).items():
            write(tmp_path / "GROUPS" / name, content)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)

    return put


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content + "\n", encoding="ascii")


ALONE = [str(cpu) for cpu in range(8)]
PAIRS = ["0,4", "1,5", "2,6", "3,7"] * 2


@pytest.mark.parametrize(
    ("siblings", "allowed", "group", "files", "cores"),
    [
        (ALONE, set(range(8)), "", {}, 8),
        (PAIRS, set(range(8)), "", {}, 4),
        (PAIRS, {0, 4}, "", {}, 1),
        (PAIRS, {0, 1, 2}, "", {}, 3),
        (ALONE, {5}, "", {}, 1),
        ([], {0, 1, 2}, "", {}, 3),
        (ALONE, set(range(8)), "0::/pod/it", {"pod/it/cpu.max": "300000 100000"}, 3),
        (ALONE, set(range(8)), "0::/pod/it", {"pod/it/cpu.max": "max 100000", "pod/cpu.max": "250000 100000"}, 2),
        (ALONE, set(range(8)), "0::/pod/it", {"pod/it/cpu.max": "20000 100000"}, 1),
        (ALONE, set(range(8)), "0::/../../elsewhere", {"cpu.max": "200000 100000"}, 2),
        (ALONE, {1, 2}, "0::/", {"cpu.max": "600000 100000"}, 2),
        (ALONE, set(range(8)), "4:cpu,cpuacct:/it\n0::/it",
         {"cpu,cpuacct/it/cpu.cfs_quota_us": "400000", "cpu,cpuacct/it/cpu.cfs_period_us": "100000"}, 4),
        (ALONE, set(range(8)), "4:cpu,cpuacct:/it",
         {"cpu,cpuacct/it/cpu.cfs_quota_us": "-1", "cpu,cpuacct/it/cpu.cfs_period_us": "100000"}, 8),
        (ALONE, set(range(8)), "3:memory:/it", {"memory/it/cpu.max": "100000 100000"}, 8),
        (ALONE, set(range(8)), "0::/it", {"it/cpu.max": "what ever"}, 8),
        (ALONE, set(range(8)), "no group", {}, 8),
    ],
)  # fmt: skip
def test_the_cores_that_there_are(machine, siblings, allowed, group, files, cores):
    machine(siblings, allowed, group, files)
    assert threads.available_cores() == cores


@pytest.mark.parametrize(("wanted", "megabytes", "expected"), [(None, 1, 1), (None, 40, 5), (3, 1, 3), (1, 40, 1)])
def test_a_small_model_has_one_thread_and_others_one_a_core(machine, tmp_path, wanted, megabytes, expected):
    machine(ALONE, set(range(5)))
    for name, size in (("a.onnx", 100), ("weights.data", megabytes << 20)):
        (tmp_path / "graphs").mkdir(exist_ok=True)
        with (tmp_path / "graphs" / name).open("wb") as stream:
            stream.truncate(size)
    assert threads.num_threads(wanted, tmp_path / "graphs" / "a.onnx") == expected


def test_onnxruntime_is_told_and_says_nothing(glimmer, capfd, monkeypatch):
    made, make = [], OnnxRuntimeBackend._make_options
    monkeypatch.setattr(OnnxRuntimeBackend, "_make_options", lambda backend: (made.append(make(backend)), made[-1])[1])
    backend = OnnxRuntimeBackend()
    for name, io in read_manifest(glimmer.bundle).io().items():
        backend.load(glimmer.graph(name), io)
    assert {options.intra_op_num_threads for options in made} == {1}
    waits = {threads_wait(options) for options in made}
    assert waits <= {SLEEPS, SLEEPS_SOON}
    assert len(waits) == 1
    assert capfd.readouterr().err == ""


SLEEPS, SLEEPS_SOON = ("0", None, "1"), ("1", "20", "1")


def threads_wait(options) -> tuple[str | None, ...]:
    """Whether they spin, for how many microseconds, and whether a run's end stops them."""

    def entry(name: str) -> str | None:
        try:
            return options.get_session_config_entry(f"session.{name}")
        except RuntimeError:
            return None

    return entry("intra_op.allow_spinning"), entry("intra_op.spin_duration_us"), entry("force_spinning_stop")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.23.2", SLEEPS), ("1.25.1", SLEEPS), ("1.26.0", SLEEPS_SOON), ("1.31.1", SLEEPS_SOON), ("2.0.0", SLEEPS_SOON),
     ("1.31.0.dev20261101", SLEEPS_SOON)],
)
def test_threads_spin_only_where_a_time_can_be_given(version, expected):
    options = onnxruntime.SessionOptions()
    threads.sleep_soon(options, version)
    assert threads_wait(options) == expected
