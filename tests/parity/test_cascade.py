"""A cascade, from the export to the answers: which passages the shortlist keeps, their scores, and what it spares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.checkpoint import read_checkpoint, write_checkpoint
from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.parity.reference import graphs_from_model
from glimmer_export.exporter.tolerances import MIN_SNR_DB, TOLERANCES, max_abs_error
from glimmer_export.runtime import Session
from tests.calibrated import calibrated
from tests.exported import CASCADES, QUESTIONS, Exported

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
OPTIONS = ParityOptions(threads=1, batch_size=4)
CASCADE = "glimmer, cascade"


@pytest.fixture(params=CASCADES)
def source(request, exported) -> Exported:
    return exported(request.param)


@pytest.fixture
def cascade(exported) -> Exported:
    return exported(CASCADE)


class Watched:
    """A graph that notes the inputs of its runs."""

    def __init__(self, graph):
        self._graph, self.runs = graph, []

    def run(self, inputs):
        self.runs.append(inputs)
        return self._graph.run(inputs)


def watched(session: Session, *names: str) -> dict[str, Watched]:
    """Graphs of a session in whose place the same are watched."""
    graphs = {name: Watched(session.graphs[name]) for name in names}
    session.reader._place.graphs = {**session.reader._place.graphs, **graphs}
    return graphs


def test_the_bundle_answers_as_the_checkpoint(source):
    """In torch every layer runs for all five, and two are dropped afterwards."""
    report = compare_with_checkpoint(source.bundle, source.checkpoint, source.store, ROWS, OPTIONS)
    assert (report.questions, report.errors) == (len(ROWS), 0)
    assert (report.answers_equal, report.top_m_overlap) == (1.0, 1.0)
    assert {"live_shortlist", "live_stage_a"} <= report.graphs.keys()
