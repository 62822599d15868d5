"""`glimmer-export sensitivity`: tables, JSON, the lines for a policy, the picture."""

from __future__ import annotations

import pytest
import yaml

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.runtime.contract import CalibrationError, OptionError, OutputError
from tests.bundle_factory import write_rows
from tests.exported import QUESTIONS, copy_bundle


@pytest.fixture(scope="module")
def arguments(glimmer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sensitivity")
    bundle = copy_bundle(glimmer, directory / "bundle")
    rows = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
    calibrate_bundle(bundle, glimmer.store, rows, CalibrationOptions(threads=1))
    questions = write_rows(directory / "questions.jsonl", [{"question": text} for text in QUESTIONS])
    return [
        "sensitivity", bundle, "--store", glimmer.store, "--questions", questions, "--samples", 3, "--threads", 1,
        "--graphs", "live_stage_a, decoder_step",
    ]


def test_json_with_a_picture(cli, arguments, tmp_path):
    plot = tmp_path / "a.svg"
    report = cli(*arguments, "--json", "--budget", 0.2, "--target", "tensorrt", "--plot", plot).json
    assert plot.read_bytes().startswith(b"<?xml")
    assert (report["questions"], report["target"], report["policy"], report["plot"]) == (
        3, "tensorrt", "int8", str(plot)
    )
    assert {row["graph"] for row in report["groups"]} == {"live_stage_a", "decoder_step"}
    assert yaml.safe_load(report["yaml"]) == {
        "lazy_layer": True, "keep": [item["group"] for item in report["keep"]]
    }
    assert report["keep"][-1]["total_cost"] <= 0.2
    assert report["notes"] == []


def test_tables(cli, arguments):
    done = cli(*arguments, "--budget", 0)
    assert done.code == 0, done.err
    for text in (r"^live_stage_a/score/", "everything", "what the policy leaves", "keep: []"):
        assert text in done.out


def test_what_is_refused(refused, arguments, glimmer, tmp_path):
    assert "calibrate" in refused(CalibrationError, "sensitivity", glimmer.bundle, *arguments[2:])
    assert ".svg" in refused(OptionError, *arguments, "--plot", tmp_path / "a.pdf")
    (tmp_path / "a.svg").touch()
    assert "--overwrite" in refused(OutputError, *arguments, "--plot", tmp_path / "a.svg")
    refused(OptionError, *arguments, "--policy", "none")
