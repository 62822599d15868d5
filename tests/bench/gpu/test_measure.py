"""The command: what it begins in its own process, which it forks from, and what it writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from glimmer_export.exporter.bench.gpu import measure
from glimmer_export.exporter.bench.gpu.backends import FIRST, PROBES, open_backend
from glimmer_export.exporter.bench.gpu.bundles import Model
from glimmer_export.exporter.bench.gpu.results import unpack_results
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import RTX, TORCH


def test_the_process_that_forks_holds_no_library_with_threads_or_a_gpu_context():
    script = (
        "import sys, threading, glimmer_export.exporter.bench.gpu.measure\n"
        "print([name for name in ('torch', 'onnxruntime', 'transformers', 'cuda', 'tensorrt_rtx')"
        " if name in sys.modules], threading.active_count())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] 1"


@pytest.fixture
def two_parts(monkeypatch):
    """In the place of the real ones: one that works and one whose second step fails."""

    def fails(_):
        sys.stderr.write("the driver's own words\n")
        raise RuntimeError("no GPU")

    probe = {"engine": TORCH, "agrees": True, "version": "1", "graphs": {}}
    parts = {
        FIRST: lambda _: [Step(PROBES[TORCH], 30, lambda _: probe)],
        "peers-large": lambda _: [Step("t5", 30, lambda _: {}), Step("model", 30, fails)],
    }
    monkeypatch.setattr(measure, "PARTS", parts)


def unpacked(archive, folder) -> dict[str, str]:
    """What came back, by file."""
    unpack_results(archive, folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


def run(tmp_path, *more) -> int:
    return measure.main(["-o", str(tmp_path / "back" / "r.tar.xz"), "--work", str(tmp_path / "work"), *more])


def test_all_parts_in_order_come_back_in_one_file(two_parts, tmp_path, capfd):
    assert run(tmp_path, "--rehearse") == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"first/{PROBES[TORCH]}", "peers-large/t5", "peers-large/model"]
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["r.tar.xz"]
    found = unpacked(tmp_path / "back" / "r.tar.xz", tmp_path / "unpacked")
    assert found.keys() == {"first.json", "first.log", "peers-large.json", "peers-large.log", "summary.json"}
    assert "the driver's own words\n" in found["peers-large.log"]
    assert "RuntimeError: no GPU" in found["peers-large.log"]
    summary = json.loads(found["summary.json"])
    assert summary["devices"] == ["cpu (rehearsal)"]
    assert summary["open"].keys() == {"peers-large/model"}
    head = json.loads(found["first.json"])["runs"][0]
    assert head["command"].startswith("python -m glimmer_export.exporter.bench.gpu.measure -o ")
    assert {"date", "device", "gpu", "machine", "versions"} <= head.keys()


def test_some_parts(two_parts, tmp_path):
    assert run(tmp_path, "--rehearse", "--part", "first") == 0
    found = unpacked(tmp_path / "back" / "r.tar.xz", tmp_path / "unpacked")
    assert found.keys() == {"first.json", "first.log", "summary.json"}


def test_another_machine_goes_on_from_the_file(two_parts, tmp_path, capfd):
    assert run(tmp_path, "--rehearse", "--part", "first") == 0
    (tmp_path / "back" / "r.tar.xz").rename(tmp_path / "r.tar.xz")
    shutil.rmtree(tmp_path / "work")
    capfd.readouterr()
    assert run(tmp_path, "--rehearse", "--resume", str(tmp_path / "r.tar.xz")) == 1
    assert capfd.readouterr().out.splitlines()[0] == f"first/{PROBES[TORCH]}: kept"


def test_the_file_is_whole_when_the_command_is_killed(tmp_path):
    script = (
        "import sys, time; from glimmer_export.exporter.bench.gpu import measure\n"
        "from glimmer_export.exporter.bench.gpu.runner import Step\n"
        "steps = [Step('t5', 60, lambda _: {'bytes': 7}), Step('model', 600, lambda _: time.sleep(600))]\n"
        "measure.PARTS = {'peers-large': lambda _: steps}\n"
        "measure.main(sys.argv[1:])\n"
    )
    words = ["-o", str(tmp_path / "r.tar.xz"), "--work", str(tmp_path / "work"), "--rehearse"]
    process = subprocess.Popen(
        [sys.executable, "-uc", script, *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline().startswith("peers-large/t5: done")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    found = unpacked(tmp_path / "r.tar.xz", tmp_path / "unpacked")
    assert json.loads(found["peers-large.json"])["steps"]["t5"]["result"] == {"bytes": 7}


def test_the_seconds_are_those_of_the_whole_call(tmp_path, monkeypatch, capfd):
    def slow(_):
        time.sleep(1.5)
        return {}

    parts = {name: lambda _: [Step("step", 60, slow)] for name in ("first", "peers-large")}
    monkeypatch.setattr(measure, "PARTS", parts)
    assert run(tmp_path, "--seconds", "6") == 1
    assert capfd.readouterr().out.splitlines()[-1].startswith("peers-large/step: left for another run")


def test_without_a_gpu_each_step_says_what_is_missing(monkeypatch, tmp_path):
    """Not a rehearsal: this machine's lack of a GPU is recorded, and nothing is made up in its place."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def opens(setting):
        with open_backend(setting, RTX, Model(tmp_path), "fp16"):
            return {}

    parts = {"switches-base": lambda setting: [Step("open", 30, lambda _: opens(setting))]}
    monkeypatch.setattr(measure, "PARTS", parts)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert run(tmp_path) == 1
    part = json.loads(unpacked(tmp_path / "back" / "r.tar.xz", tmp_path / "unpacked")["switches-base.json"])
    assert part["runs"][0]["device"] == "unknown"
    assert part["steps"]["open"]["status"] == "failed"
    assert "tensorrt" in part["steps"]["open"]["error"].lower()
