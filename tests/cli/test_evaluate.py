"""The evaluate command: what it refuses, prints and writes."""

from __future__ import annotations

import shutil

import pytest

from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.evaluation import show
from glimmer_export.exporter.evaluation.bundle import BundleModel
from glimmer_export.runtime.contract import BundleError, OptionError, OutputError, QuestionFileError, StoreError
from tests.bundle_factory import write_rows
from tests.calibrated import quantized
from tests.evaluation.conftest import question_rows
from tests.exported import CORPUS, QUESTIONS


@pytest.fixture
def questions(tmp_path):
    return write_rows(tmp_path / "asked.jsonl", question_rows())


def test_a_bundle_and_its_checkpoint_by_a_store(cli, glimmer, questions, tmp_path):
    page, plot = tmp_path / "page.html", tmp_path / "plot.svg"
    arguments = (
        "evaluate", glimmer.bundle, glimmer.checkpoint, "--store", glimmer.store, "--questions", questions,
        "--threads", 1, "--grid", "k=2,5", "--grid", "m=2", "--html", page, "--plot", plot,
    )  # fmt: skip
    report = cli(*arguments, "--json").json
    assert [model["label"] for model in report["models"]] == ["bundle", "checkpoint"]
    assert report["tasks"] == {"long": 4, "short": 4}
    runs = report["runs"]
    assert [(run["model"], run["k"], run["m"]) for run in runs] == [
        (model, k, 2) for model in ("bundle", "checkpoint") for k in (2, 5)
    ]
    scores = [{name: run[name] for name in ("average", "tasks")} for run in runs]
    assert scores[:2] == scores[2:]  # the answers are the same
    of_answer = cli(
        "answer", glimmer.bundle, "--store", glimmer.store, "--questions", questions, "--top-k", 5, "--json"
    ).json
    for task, found in of_answer["tasks"].items():
        for name in ("em", "f1", "accuracy", "rouge_l"):
            assert runs[1]["tasks"][task][name]["value"] == pytest.approx(found[name])
    cost = cost_report(CostRequest(bundle=glimmer.bundle, k=5, m=2)).samples_per_tflop
    assert (runs[1]["samples_per_tflop"], runs[1]["paper_samples_per_tflop"]) == (cost["ours"], cost["glimmer"])
    assert runs[3]["paper_samples_per_tflop"] == cost["glimmer"]
    zero = report["differences"][-1]["average"]["gold_in_m"]
    assert (zero["value"], zero["low"], zero["high"]) == (0, 0, 0)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert plot.read_bytes().startswith(b"<?xml")
    assert "option" not in cli(*arguments, "--overwrite").err
    assert {path.name for path in tmp_path.iterdir()} == {questions.name, page.name, plot.name}


def test_what_was_answered_is_kept_beside_the_page_until_it_is_written(
    cli, refused, glimmer, questions, tmp_path, monkeypatch
):
    def fails(*arguments, **options):
        raise OutputError("page", expected="room on the disk", found="a full disk", fix="free some space")

    page = tmp_path / "page.html"
    arguments = ("evaluate", glimmer.bundle, "--store", glimmer.store, "--questions", questions, "--threads", 1)
    with monkeypatch.context() as full:
        full.setattr(show, "write_html", fails)
        assert cli(*arguments, "--html", page).code == 2
    work = tmp_path / "page.html.partial"
    assert {path.name for path in work.iterdir()} == {"plan.json", "0-00000.json"}
    said = refused(OutputError, *arguments, "--html", page, "--grid", "m=1")
    assert f"unfinished evaluation {work}: expected grid ('k 5, m 1',), as asked for, found ('k 5, m 2',)" in said
    monkeypatch.setattr(BundleModel, "opened", fails)  # nothing is left to be asked
    assert cli(*arguments, "--html", page).code == 0
    assert page.is_file()
    assert not work.exists()


def test_tables_and_tasks_named_with_their_files(cli, glimmer, questions):
    done = cli(
        "evaluate", glimmer.bundle, "--corpus", glimmer.corpus, "--questions", f"{questions}=mine", "--threads", 1,
        "--limit", 3,
    )
    assert done.code == 0
    assert "bundle, k 5, m 2" in done.out
    assert "mine" in done.out
    assert "samples per" in done.out


def test_an_int8_bundle_reads_what_a_float_one_builds(cli, refused, glimmer, questions):
    int8 = quantized(glimmer, "int8")
    asked = ("--corpus", glimmer.corpus, "--questions", questions, "--threads", 1)
    report = cli("evaluate", int8, glimmer.bundle, *asked, "--json").json
    assert [model["kind"] for model in report["models"]] == ["bundle", "bundle"]
    assert all(run["errors"] == {} for run in report["runs"])
    assert "for its own memory encoder is in INT8" in refused(BundleError, "evaluate", int8, *asked)


@pytest.mark.parametrize(
    ("error", "options", "expected"),
    [
        (OptionError, ("--grid", "n=5"), "k=N,N,... or m=N,N,..."),
        (OptionError, ("--grid", "m=7"), "an m of at most the largest k, 5"),
        (OptionError, ("--retrieval", "dense", "--passages", "given"), "a store that has vectors"),
        (OutputError, ("--html", "{folder}"), "the name of a file"),
        (OptionError, ("--plot", "plot.pdf"), ".png or .svg"),
    ],
)
def test_a_bad_option_is_named(refused, glimmer, questions, tmp_path, error, options, expected):
    given = [str(option).format(folder=tmp_path) for option in options]
    said = refused(error, "evaluate", glimmer.bundle, "--store", glimmer.store, "--questions", questions, *given)
    assert expected in said


def test_passages_come_from_one_place(refused, glimmer, questions):
    asked = ("evaluate", glimmer.bundle, "--questions", questions)
    assert "found both" in refused(OptionError, *asked, "--store", glimmer.store, "--corpus", glimmer.corpus)
    assert "--corpus or --store" in refused(OptionError, *asked)
    assert "no store" in refused(OptionError, *asked, "--corpus", glimmer.corpus, "--retrieval", "hybrid")


def test_a_store_is_every_models(refused, exported, glimmer, questions, tmp_path):
    """Before anything is asked: the other model comes second."""
    other = exported("glimmer, every option")
    for path in (other.bundle, other.checkpoint):
        said = refused(
            StoreError, "evaluate", glimmer.bundle, path, "--store", glimmer.store, "--questions", questions
        )
        assert str(path) in said


def test_what_is_no_model_is_said_to_be_none(refused, glimmer, questions, tmp_path):
    for path in (glimmer.store, questions, tmp_path, tmp_path / "nothing"):
        said = refused(OptionError, "evaluate", path, "--store", glimmer.store, "--questions", questions)
        assert "a checkpoint or a bundle" in said
    damaged = shutil.copytree(glimmer.bundle, tmp_path / "damaged")
    (damaged / "graphs" / "live_stage_a.onnx").write_bytes(b"")
    refused(BundleError, "evaluate", damaged, "--store", glimmer.store, "--questions", questions)


def test_questions_are_graded_or_refused(cli, refused, glimmer, tmp_path):
    asked = ("evaluate", glimmer.bundle, "--store", glimmer.store, "--threads", 1, "--questions")
    ungraded = write_rows(tmp_path / "ungraded.jsonl", [{"question": text} for text in QUESTIONS[:2]])
    assert "answers or gold passages to grade by" in refused(QuestionFileError, *asked, ungraded)
    unfound = write_rows(tmp_path / "unfound.jsonl", [{"question": "nowhere", "answers": ["x"]}])
    assert "passages for the questions" in refused(QuestionFileError, *asked, unfound)
    refused(QuestionFileError, *asked, tmp_path / "absent.jsonl")
    refused(OptionError, *asked, f"{ungraded}=")
    gold = write_rows(tmp_path / "gold.jsonl", [{"question": "w1", "gold_ids": ["p0"]}])
    report = cli(*asked, gold, "--json").json
    assert set(report["runs"][0]["average"]) == {"gold_in_m", "gold_in_k"}
    assert any("exact match, token F1, accuracy are not measured" in note for note in report["notes"])


def test_kilts_rows_are_graded_by_pages_as_answer_grades_them(cli, glimmer, tmp_path):
    corpus = write_rows(
        tmp_path / "pages.jsonl", [{**row, "wikipedia_id": str(place % 7)} for place, row in enumerate(CORPUS)]
    )
    rows = [
        {"id": text, "input": text, "output": [{"answer": "w1", "provenance": [{"wikipedia_id": str(place % 7)}]}]}
        for place, text in enumerate(QUESTIONS)
    ]
    questions, store = write_rows(tmp_path / "kilt.jsonl", rows), tmp_path / "store"
    assert cli("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", store, "--threads", 1).code == 0
    answered = cli("answer", glimmer.bundle, "--store", store, "--questions", questions, "--json").json
    report = cli("evaluate", glimmer.bundle, glimmer.checkpoint, "--corpus", corpus, "--questions", questions, "--json")
    expected = {name: answered[name] for name in ("em", "r_precision", "kilt_em", "kilt_f1")}
    expected |= {f"recall@{k}": value for k, value in answered["recall"].items()}
    for name, which in (("gold_in_m", lambda passage: passage["read"]), ("gold_in_k", lambda _: True)):
        found = [
            any(which(item) and item["wikipedia_id"] == str(place % 7) for item in answer["passages"])
            for place, answer in enumerate(answered["answers"])
        ]
        expected[name] = sum(found) / len(found)
    assert 0 < expected["gold_in_m"] < expected["gold_in_k"] < 1
    for run in report.json["runs"]:
        scores = run["tasks"]["kilt"]
        assert {name: scores[name]["value"] for name in expected} == pytest.approx(expected)
