"""A rehearsal's folders, made once, and its steps in this process, where every mistake shows its traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.gpu.runner import Part, Step, finite
from tests.gpu.setting import Setting, describe


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory) -> Setting:
    return Setting.of(tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out"), rehearsal=True)


@pytest.fixture
def run_steps() -> Callable[[Setting, str, list[Step]], Part]:
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
