"""The first look: what runs here is found out one engine at a time, and nothing stops the others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glimmer_export.exporter.bench.gpu import rehearsal
from glimmer_export.exporter.bench.gpu.backends import PROBES, refusal, working
from glimmer_export.exporter.bench.gpu.parts import first
from glimmer_export.exporter.bench.gpu.runner import FAILED, LEFT, Part
from glimmer_export.exporter.bench.gpu.setting import ENGINES, ORT_CUDA, RTX, TORCH
from glimmer_export.exporter.bench.gpu.torch_stages import StageOfGraph
from tests.runtime.backends.fake_cuda import FakeCuda

GRAPHS = {"live_stage_a", "live_stage_b", "decoder_step", "memory_encoder"}


@pytest.fixture
def looked(two_layers, setting, run_steps, monkeypatch):
    """The first part on a model that is there already, all of its steps or some."""
    monkeypatch.setattr(first, "demo_checked", lambda work, scale: (two_layers, {}))

    def run(*names):
        steps = [step for step in first.steps(setting) if not names or step.name in ("demo", *names)]
        return run_steps(setting, "first", steps).results

    return run


def test_every_engine_is_tried_and_agrees(looked, setting):
    found = looked()
    assert found["cuda"]["gpu"] == "NVIDIA H200"
    for engine in (TORCH, ORT_CUDA):
        graphs = found[PROBES[engine]]["graphs"]
        assert graphs.keys() == GRAPHS
        assert all(facts["agrees"] for facts in graphs.values())
    answers = found["torch-stages-answers"]
    assert answers["agrees"]
    assert answers["same_answers"] == answers["answers"] > 8
    assert answers["queued"]["decoder_step"] > 0
    assert answers["launched"] > 0
    assert found["tensorrt-rtx"]["tries"].keys() == {"CURRENT"}
    assert working(setting) == list(ENGINES)


def test_an_engine_that_is_refused_is_tried_for_one_older_gpu_and_no_more(looked, setting, monkeypatch):
    tried = []

    def refuse(setting, model, capability):
        tried.append(capability)
        raise ValueError(f"{capability} is no compute capability")

    monkeypatch.setattr(first, "_build_one", refuse)
    found = looked("tensorrt-rtx")["tensorrt-rtx"]
    assert tried == ["CURRENT", "8.0"]
    assert not found["agrees"]
    assert working(setting) == [ORT_CUDA, TORCH]
    assert refusal(setting, RTX) == (
        "CURRENT: ValueError: CURRENT is no compute capability; 8.0: ValueError: 8.0 is no compute capability"
    )


def test_the_older_gpu_s_engine_is_taken_where_it_runs(looked, monkeypatch):
    build = first._build_one

    def refuse_current(setting, model, capability):
        if capability == "CURRENT":
            raise ValueError("not listed")
        build(setting, model, capability)

    monkeypatch.setattr(first, "_build_one", refuse_current)
    found = looked("tensorrt-rtx")["tensorrt-rtx"]
    assert (found["agrees"], found["capability"]) == (True, "8.0")
    assert [facts["agrees"] for facts in found["tries"].values()] == [False, True]


def test_a_wrong_graph_does_not_agree(looked, setting, monkeypatch):
    run = StageOfGraph.__call__

    def wrong(stage, *tensors):
        found = run(stage, *tensors)
        return [value * 1.01 if value.is_floating_point() else value for value in found]

    monkeypatch.setattr(StageOfGraph, "__call__", wrong)
    found = looked(PROBES[TORCH])[PROBES[TORCH]]
    assert not found["agrees"]
    assert not any(facts["agrees"] for facts in found["graphs"].values())
    assert working(setting) == [RTX, ORT_CUDA]


def test_a_copy_that_is_lost_is_seen(setting, run_steps, fakes, monkeypatch):
    real = FakeCuda.cudaMemsetAsync
    monkeypatch.setattr(FakeCuda, "cudaMemsetAsync", lambda self, address, value, size, stream: real(
        self, address, 1, size, stream
    ))  # fmt: skip
    with pytest.raises(RuntimeError, match="what was copied came back: False, by a CUDA graph: False"):
        first._cuda(setting, {})


@pytest.mark.parametrize(("status", "works"), [(FAILED, False), (LEFT, True)])
def test_what_was_not_looked_at_may_work(setting, status, works):
    part = Part.open(setting.out, "first")
    part.steps = {PROBES[ORT_CUDA]: {"status": status, "error": "stopped after 90 s, it may take"}}
    part.write()
    assert (ORT_CUDA in working(setting)) == works
    assert refusal(setting, ORT_CUDA) == (None if works else "stopped after 90 s, it may take")


def test_onnxruntime_comes_from_its_own_folder_with_torch_before_it(tmp_path):
    """What is unpacked for the GPU is for the steps that use it: the machine's own serves the others."""
    modules = {"torch": "", "onnxruntime": "import sys\nassert 'torch' in sys.modules\n__version__ = '9.9'\n"}
    for name, content in modules.items():
        package = tmp_path / "carried" / "onnxruntime" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(content)
    script = (
        "import sys; from pathlib import Path\n"
        "from glimmer_export.exporter.bench.gpu.backends import import_onnxruntime\n"
        "from glimmer_export.exporter.bench.gpu.setting import Setting\n"
        "folder = Path(sys.argv[1])\n"
        "setting = Setting.of(folder, folder, rehearsal=False, carried=folder / 'carried')\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "print(import_onnxruntime(setting).__version__)\n"
    )
    found = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == "9.9\n"


def test_the_fakes_of_a_rehearsal_are_made_once(fakes):
    assert rehearsal.fake_cuda() is fakes
    assert rehearsal.fake_rtx() is rehearsal.fake_rtx()
