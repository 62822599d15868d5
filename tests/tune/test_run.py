"""A whole search on the demo, of a few questions: its front is made again by its own command lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from glimmer_export.calibration.calibrators import MseCalibrator
from glimmer_export.calibration.questions import read_questions
from glimmer_export.exporter.demo.data import write_demo
from glimmer_export.exporter.memory import codec_fit, convert
from glimmer_export.exporter.tune import Goals, TuneReport, TuneRequest, tune, workshop
from glimmer_export.exporter.tune.front import beats
from glimmer_export.exporter.tune.journal import JOURNAL
from glimmer_export.exporter.tune.show import write_html
from glimmer_export.exporter.tune.trials import NEARER
from glimmer_export.runtime.contract import MANIFEST, OutputError, file_digest
from tests.tune.measure_remade import remade

GRID = (
    "codec=int8,int4,pq16x", "index=fts5", "stage_a=lazy", "cross_attention=absorbed", "precision=int8", "method=max",
    "weight_only=none", "k=10,5", "m=3", "mass=none", "draft_tokens=4", "threads=1",
)  # fmt: skip
GOALS = Goals(latency_ms=10_000.0, store_gb=1.0, em_loss=20.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "world"
    write_demo(folder, num_questions=160, seed=0)
    return folder


def request_for(world: Path, output: Path, **changes: Any) -> TuneRequest:
    request = TuneRequest(
        world / "checkpoint", (world / "corpus.jsonl",), (world / "questions.jsonl",), output, goals=GOALS, trials=6,
        gate="demo", tried=GRID, samples=16, sensitivity_samples=0, timed=4,
    )  # fmt: skip
    return replace(request, **changes)


def run(request: TuneRequest) -> TuneReport:
    found = tune(request, read_questions(request.questions))
    assert isinstance(found, TuneReport)
    return found


@pytest.fixture(scope="module")
def searched(world, tmp_path_factory) -> TuneReport:
    """What is read is given as a path from here: the lines are run elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world.parent)
        return run(request_for(Path(world.name), tmp_path_factory.mktemp("searched") / "out"))


def folder_of(report: TuneReport) -> Path:
    return report.request.output


def test_the_whole_grid_is_tried_and_something_is_better_than_the_default(searched):
    assert (searched.ended, len(searched.trials.all)) == ("the whole space", 4), searched.space.notes
    found = searched.to_json()
    assert any("store_gb" in point["beats_default_in"] for point in found["front"])
    assert found["met"] is True
    assert found["latency"] == "measured here"
    assert {item["goal"] for item in found["standings"]} == {"latency_ms", "store_gb", "em_loss"}
    assert json.loads((folder_of(searched) / "report.json").read_text(encoding="utf-8"))["chosen"] == found["chosen"]


def test_the_chosen_bundle_passed_the_gate_on_questions_that_the_search_did_not_see(searched):
    output = folder_of(searched)
    seen, held = (
        {question.question for question in read_questions(output / name)} for name in ("search.jsonl", "held-out.jsonl")
    )
    assert seen.isdisjoint(held)
    record = json.loads((output / "bundle" / "parity.json").read_text(encoding="utf-8"))["records"][0]
    assert record["gate"]["passed"] is True
    assert record["report"]["coverage"]["asked"] == searched.questions[1]
    last = searched.to_json()["held_out"][-1]
    assert last["number"] == searched.chosen
    assert last["em"]["questions"] == searched.questions[1]
    chosen = searched.trials.all[searched.chosen]
    for name in ("bundle", "store"):
        assert file_digest(output / name / MANIFEST) == chosen.digests[name]


def test_every_point_of_the_front_is_made_again_by_its_lines_and_gives_its_figures(searched, glimmer_export, tmp_path):
    for point in searched.to_json()["front"]:
        found = remade(point, tmp_path, glimmer_export)
        assert (found["bundle"], found["store"]) == (True, True)
        assert found["em"][0] == pytest.approx(point["em"]["value"])
        if point["number"] == searched.chosen:
            assert found["em"][1] == pytest.approx(searched.held_out[-1].em.value)
        place = tmp_path / f"point-{point['number']}"
        files = [path for path in (place / "store").rglob("*") if path.is_file() and "replicas" not in path.parts]
        assert sum(path.stat().st_size for path in files if path.name != MANIFEST) == point["store_bytes"]


@pytest.fixture
def glimmer_export(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    from glimmer_export.exporter.cli.app import command

    monkeypatch.chdir(tmp_path)

    def run_command(*words: str) -> str:
        command(list(words), standalone_mode=False)
        return str(capsys.readouterr().out)

    return run_command


def test_a_search_that_was_stopped_goes_on_with_the_same_proposals(searched, world, tmp_path, monkeypatch):
    """From the middle of a point's questions: what stands in the journal is not done again."""
    monkeypatch.chdir(world.parent)
    output = tmp_path / "out"
    shutil.copytree(folder_of(searched), output)
    lines = (output / JOURNAL).read_bytes().splitlines(keepends=True)
    cut = [place for place, line in enumerate(lines) if b'"asked"' in line][2]
    (output / JOURNAL).write_bytes(b"".join(lines[:cut]) + b'{"event": "as')
    again = run(replace(searched.request, output=output))
    assert (output / JOURNAL).read_bytes().startswith(b"".join(lines[:cut]))
    assert [trial.point for trial in again.trials.all] == [trial.point for trial in searched.trials.all]
    assert [trial.right for trial in again.trials.all] == [trial.right for trial in searched.trials.all]
    with pytest.raises(OutputError, match="em_loss"):
        run(replace(searched.request, output=output, goals=replace(GOALS, em_loss=1.0)))


def test_the_page_is_well_formed_and_a_picked_point_shows_its_switches(searched, tmp_path):
    page = tmp_path / "page.html"
    write_html(searched, page, command="glimmer-export tune <x>")
    text = page.read_text(encoding="utf-8")
    root = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    links = {link.get("href") for link in root.iter("a")}
    assert links == {f"#point-{trial.number}" for trial in searched.front}
    for section in root.iter("section"):
        shown = "".join(section.itertext())
        assert f"#{section.get('id')}" in links
        assert "cross_attention" in shown
        assert "glimmer-export memory build" in shown
    assert "<script" not in text


@pytest.fixture
def exported_once(searched, monkeypatch) -> None:
    """The float bundle of the first search in the place of another export, which takes longer than all the rest."""
    made = folder_of(searched) / "parts" / "float-lazy-absorbed"
    monkeypatch.setattr(workshop, "export_bundle", lambda _checkpoint, place, _forms: shutil.copytree(made, place))


@pytest.mark.usefixtures("exported_once")
def test_a_codec_fitted_on_the_wrong_sample_never_stands_on_the_front(tmp_path, monkeypatch):
    """Of so many passages that its store is the smaller one, codebooks and all."""
    def on_noise(name: str, width: int, sample: Any) -> Any:
        if name != "pq16x":
            return codec_fit.fit_codec(name, width, sample)
        random = np.random.default_rng(1)
        return codec_fit.fit_codec(name, width, [random.normal(100, 1, (64, width)).astype(np.float32)])

    monkeypatch.setattr(convert, "fit_codec", on_noise)
    write_demo(tmp_path / "world", num_questions=500, seed=0)
    tried = ("codec=int8,pq16x", *GRID[1:7], "k=10", *GRID[8:])
    report = run(request_for(tmp_path / "world", tmp_path / "out", tried=tried))
    planted = [trial for trial in report.trials.all if trial.point["codec"] == "pq16x"]
    assert [bool(trial.dropped) for trial in planted] == [True]
    assert planted[0].sizes[0] < report.trials.default.sizes[0]
    assert all(trial.point["codec"] == "int8" for trial in report.front)


@pytest.mark.usefixtures("exported_once")
def test_a_broken_calibrator_never_stands_on_the_front(world, tmp_path, monkeypatch):
    monkeypatch.setattr(MseCalibrator, "amax", lambda _self, tensor, levels=127: tensor.amax / 500)
    tried = ("codec=int8", *GRID[1:5], "method=max,mse", "weight_only=none", "k=10", *GRID[8:])
    report = run(request_for(world, tmp_path / "out", tried=tried, policy="naive", gate="demo"))
    planted = [trial for trial in report.trials.all if trial.point["method"] == "mse"]
    assert len(planted) == 1
    assert planted[0].dropped
    assert all(trial.point["method"] == "max" for trial in report.front)


@pytest.mark.usefixtures("exported_once")
def test_exact_graphs_and_store_are_tried_though_the_grid_leaves_them_out(world, tmp_path):
    """Of INT8 alone nothing passes; what is measured for it is no part of the search, which goes on behind it."""
    gate = tmp_path / "strict.yaml"
    gate.write_text("description: strict\nmin_answered: 20\nmin_snr_db: {live_stage_b: 90}\n", encoding="utf-8")
    tried = ("codec=int8", *GRID[1:7], "k=10,5", *GRID[8:])
    asked = request_for(world, tmp_path / "out", tried=tried, gate=str(gate), trials=1)
    report = run(asked)
    chosen = report.trials.all[report.chosen]
    assert (chosen.point["precision"], chosen.point["codec"], chosen.by) == ("fp32", "fp16", NEARER)
    assert [trial.by for trial in report.trials.all].count(NEARER) == len(report.trials.all) - 1
    assert report.met
    again = run(asked)
    assert ([trial.point for trial in again.trials.all], again.chosen) == (
        [trial.point for trial in report.trials.all], report.chosen
    )
    further = run(replace(asked, trials=2))
    assert [trial.point["k"] for trial in further.trials.all if trial.by != NEARER] == [10, 5]
    assert further.trials.all[further.chosen].point["precision"] == "fp32"


@pytest.mark.usefixtures("exported_once")
def test_where_nothing_passes_it_is_said_by_how_much_and_what_would(world, tmp_path):
    gate = tmp_path / "gate.yaml"
    gate.write_text("description: none\nmin_answered: 20\nmin_snr_db: {live_stage_b: 900}\n", encoding="utf-8")
    tried = ("codec=int8", *GRID[1:7], "k=10", *GRID[8:])
    report = run(request_for(world, tmp_path / "out", tried=tried, gate=str(gate)))
    assert (report.chosen, report.met) == (None, False)
    said = report.sentences()
    lines = [line for line in said if "min_snr_db.live_stage_b 900: " in line and "too little" in line]
    assert len(lines) == len(report.held_out)
    limit = float(said[-1].split("min_snr_db.live_stage_b: ")[1].split()[0].rstrip(","))
    number = int(said[-1].split()[1])
    held = next(item for item in report.held_out if item.number == number)
    found = next(check.found for check in held.gate.checks if check.name == "min_snr_db.live_stage_b")
    assert limit <= found < limit + 1e-3


@pytest.mark.usefixtures("exported_once")
def test_a_point_that_reads_all_it_retrieves_is_judged_and_may_be_chosen(world, tmp_path):
    tried = ("codec=int8", *GRID[1:7], "k=3", *GRID[8:])
    report = run(request_for(world, tmp_path / "out", tried=tried))
    chosen = report.trials.all[report.chosen]
    assert (chosen.point["k"], chosen.point["m"]) == (3, 3)
    overlap = next(check for check in report.held.gate.checks if check.name == "min_top_m_overlap")
    assert overlap.questions > 0
    assert report.gate_passed


@pytest.mark.slow
def test_within_a_quarter_of_an_hour_something_is_better_than_the_default_or_nothing_is(tmp_path):
    """On the demo's 3,000 questions, of all switches."""
    write_demo(tmp_path / "world", num_questions=3000, seed=0)
    request = TuneRequest(
        tmp_path / "world" / "checkpoint", (tmp_path / "world" / "corpus.jsonl",),
        (tmp_path / "world" / "questions.jsonl",), tmp_path / "out", goals=Goals(60.0, 0.02, 1.0), minutes=13.0,
    )  # fmt: skip
    report = run(request)
    better = [beats(trial, report.trials, report.goals) for trial in report.front]
    assert any(better) or report.ended == "the whole space"
    chosen = report.trials.all[report.chosen]
    assert chosen.sizes[0] <= 0.02e9
    assert report.trials.latency_ms(chosen) <= 60.0
