"""The check of a graph in a process of its own says what the check at home says."""

from __future__ import annotations

import os
import signal

import pytest

from glimmer_export.exporter.graphs.check import StageCheck
from glimmer_export.runtime.contract import ExportError
from tests.exported import Exported

NAME = "live_stage_a"


def check_of(source: Exported, kind: type[StageCheck] = StageCheck) -> StageCheck:
    return kind(source.checkpoint, source.graph(NAME), source.forms, frozenset(), "fp32")


def test_a_check_apart_finds_the_same_error(glimmer):
    (graph,) = (graph for graph in glimmer.graphs if graph.name == NAME)
    assert check_of(glimmer).run_apart() == graph.max_abs_err


class Killed(StageCheck):
    """As where memory runs out."""

    def run(self) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0


class Failing(StageCheck):
    """As where a tolerance is missed."""

    def run(self) -> float:
        raise ExportError(self.path.stem, expected="one", found="another", fix="none")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "message"), [(Killed, "found a check that the system stopped"), (Failing, "another")])
def test_a_check_that_fails_apart_is_a_named_error(glimmer, kind, message):
    with pytest.raises(ExportError, match=message):
        check_of(glimmer, kind).run_apart()
