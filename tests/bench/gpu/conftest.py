"""A rehearsal's folders, made once, and its steps in this process, where every mistake shows its traceback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from glimmer_export.exporter.bench.gpu.bundles import Model
from glimmer_export.exporter.bench.gpu.rehearsal import fake_cuda
from glimmer_export.exporter.bench.gpu.runner import Part, Step, finite
from glimmer_export.exporter.bench.gpu.setting import Setting, describe
from tests.bundle_factory import write_rows
from tests.calibrated import calibrated
from tests.exported import QUESTIONS

REPLACED = ("cuda", "cuda.bindings", "tensorrt", "tensorrt_rtx")


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory) -> Setting:
    return Setting.of(tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out"), rehearsal=True)


@pytest.fixture(scope="session")
def quick(exported, tmp_path_factory) -> Setting:
    """A rehearsal whose model, two layers in stage A, other tests have exported and calibrated already."""
    source, work = exported("glimmer, exact algebra, two layers"), tmp_path_factory.mktemp("quick")
    (work / "large").mkdir()
    (work / "large" / "checkpoint").symlink_to(source.checkpoint)
    shutil.copytree(calibrated(source), work / "large" / "fp32")
    setting = Setting.of(work, tmp_path_factory.mktemp("quick-out"), rehearsal=True)
    shape = source.shape
    scale = replace(setting.scale, passage_tokens=shape.passage_length, answer_tokens=shape.max_new_tokens)
    return replace(setting, scale=scale)


@pytest.fixture
def setting(tmp_path) -> Setting:
    """A rehearsal of one test's own, whose models are none of the steps'."""
    return Setting.of(tmp_path / "work", tmp_path, rehearsal=True)


@pytest.fixture(scope="session")
def two_layers(exported, tmp_path_factory) -> Model:
    """The variant with two layers in stage A, which other tests export too, as a model's folder to measure."""
    source, folder = exported("glimmer, exact algebra, two layers"), tmp_path_factory.mktemp("two-layers")
    shutil.copytree(source.bundle, folder / "fp32")
    (folder / "checkpoint").symlink_to(source.checkpoint)
    (folder / "store").symlink_to(source.store)
    write_rows(folder / "questions.jsonl", [{"question": text, "answers": ["w1"]} for text in QUESTIONS])
    return Model(folder)


@pytest.fixture
def fakes(monkeypatch, tmp_path) -> None:
    """Whatever a step puts in the place of CUDA and TensorRT goes with the test, and must have been left clean."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in REPLACED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    cuda = fake_cuda()
    yield cuda
    for name in REPLACED:
        sys.modules.pop(name, None)
    cuda.check_clean()


@pytest.fixture
def run_steps(fakes) -> Callable[[Setting, str, list[Step]], Part]:
    """Runs a part's steps one after the other, and writes its file."""

    def run(setting: Setting, name: str, steps: list[Step]) -> Part:
        part = Part.open(setting.out, name)
        part.runs.append({"date": "2026-01-01", **describe(setting, "test")})
        for step in steps:
            assert set(step.needs) <= part.steps.keys()
            result: Any = finite(step.run(part.results))
            part.steps[step.name] = {"run": 0, "seconds": 0.0, "status": "done", "result": result}
        part.write()
        return part

    return run
