"""The command: what it begins in its own process, which it forks from, and what it writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.gpu import measure
from tests.gpu.runner import Step


def test_the_process_that_forks_holds_no_library_with_threads_or_a_gpu_context():
    script = (
        "import sys, threading, tests.gpu.measure\n"
        "print([name for name in ('torch', 'onnxruntime', 'transformers', 'cuda', 'tensorrt_rtx')"
        " if name in sys.modules], threading.active_count())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] 1"


@pytest.fixture
def two_parts(monkeypatch):
    """In the place of the real ones: one that works and one whose second step fails."""

    def fails(_):
        raise RuntimeError("no GPU")

    parts = {
        "engines": lambda setting: [Step("choice", 30, lambda _: {"backend": setting.backend, "capability": "8.0"})],
        "parity": lambda setting: [Step("model", 30, lambda _: {}), Step("fp16-engines", 30, fails)],
    }
    monkeypatch.setattr(measure, "PARTS", parts)


def test_all_parts_in_order_with_a_summary(two_parts, tmp_path, capfd):
    assert measure.main(["-o", str(tmp_path / "out"), "--rehearse"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["engines/choice", "parity/model", "parity/fp16-engines"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["devices"] == ["cpu (rehearsal)"]
    assert summary["open"].keys() == {"parity/fp16-engines"}
    head = json.loads((tmp_path / "out" / "engines.json").read_text())["runs"][0]
    assert head["command"].startswith("python -m tests.gpu.measure -o ")
    assert {"date", "device", "gpu", "machine", "versions"} <= head.keys()


def test_one_part(two_parts, tmp_path):
    assert measure.main(["-o", str(tmp_path), "--rehearse", "--part", "engines"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"engines.json", "summary.json"}


def test_without_a_gpu_each_step_says_what_is_missing(monkeypatch, tmp_path):
    """Not a rehearsal: this machine's lack of a GPU is recorded, and nothing is made up in its place."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def opens(setting, _):
        from tests.gpu.backends import open_backend

        with open_backend(setting, tmp_path):
            return {}

    parts = {"switches-base": lambda setting: [Step("open", 30, lambda _: opens(setting, _))]}
    monkeypatch.setattr(measure, "PARTS", parts)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert measure.main(["-o", str(tmp_path / "out"), "--work", str(tmp_path)]) == 1
    part = json.loads((tmp_path / "out" / "switches-base.json").read_text())
    assert part["runs"][0]["device"] == "unknown"
    assert part["steps"]["open"]["status"] == "failed"
    assert "tensorrt" in part["steps"]["open"]["error"].lower()
