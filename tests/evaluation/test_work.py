"""An evaluation that was interrupted, given again: what was answered is not asked again, and the report is the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glimmer_export.exporter.evaluation import EvaluationRequest, Grid, ModelOptions, evaluate
from glimmer_export.exporter.evaluation import run as subject
from glimmer_export.exporter.evaluation.questions import TaskQuestion
from glimmer_export.exporter.evaluation.work import Kept, remove_work
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.runtime.contract import OutputError
from tests.bundle_factory import write_rows

ROOT = Path(__file__).resolve().parents[2]
SPAN = 3
"""Of the eight questions of a test, in batches of one: three spans a model."""


@pytest.fixture
def spans(monkeypatch) -> list[int]:
    """How many questions each span has that a model is asked."""
    asked, real = [], subject._ask_span

    def counted(answering, span, *arguments):
        asked.append(len(span))
        return real(answering, span, *arguments)

    monkeypatch.setattr(subject, "SPAN", SPAN)
    monkeypatch.setattr(subject, "_ask_span", counted)
    return asked


@pytest.fixture
def request_of(glimmer, tmp_path):
    """What to evaluate, by the models."""

    def made(*models: Path, **options) -> EvaluationRequest:
        return EvaluationRequest(
            models, options=ModelOptions(glimmer.store, batch_size=1, threads=1), grid=Grid((2, 5), (1, 2)),
            work=tmp_path / "work", **options,
        )  # fmt: skip

    return made


def report_of(request: EvaluationRequest, asked: list[TaskQuestion]) -> str:
    return json.dumps(evaluate(request, asked).to_json(), indent=2)


def stop_after(monkeypatch, spans: int) -> None:
    """Have the next evaluation stop once this many spans are kept."""
    real, written = Kept.write, []

    def write(kept, *arguments):
        real(kept, *arguments)
        written.append(kept)
        if len(written) == spans:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "write", write)


@pytest.mark.parametrize(("kept", "left"), [(1, [3, 2, 3, 3, 2]), (5, [2])])
def test_it_continues_with_what_was_not_answered(
    glimmer, request_of, asked, spans, tmp_path, monkeypatch, kept, left
):
    request = request_of(glimmer.bundle, glimmer.checkpoint)
    unbroken = report_of(replace(request, work=None), asked)
    with monkeypatch.context() as stopped:
        stop_after(stopped, kept)
        with pytest.raises(KeyboardInterrupt):
            evaluate(request, asked)
    spans.clear()
    assert report_of(request, asked) == unbroken
    assert spans == left
    remove_work(request.work)
    assert not request.work.exists()


def test_passages_are_given_or_of_a_corpus_too_and_questions_are_refused(glimmer, request_of, asked, spans, tmp_path):
    too_long = replace(asked[0].question, question="w1 " * 100_000)
    rows = [TaskQuestion(too_long, "short"), *asked]
    of_corpus = replace(
        request_of(glimmer.bundle, glimmer.checkpoint), corpus=CorpusSource.of([glimmer.corpus], None, None),
        options=ModelOptions(batch_size=1, threads=1),
    )
    for number, request in enumerate((of_corpus, request_of(glimmer.bundle, given=True))):
        request = replace(request, work=tmp_path / str(number))  # noqa: PLW2901 - a folder of its own
        first = report_of(request, rows)
        assert len(spans) > 0
        spans.clear()
        assert report_of(request, rows) == first
        assert spans == []


KILLED = """
import os, signal, sys
from pathlib import Path
from glimmer_export.exporter import evaluation as subject
from glimmer_export.exporter.evaluation import run
from glimmer_export.exporter.evaluation.work import Kept
bundle, store, questions, work = map(Path, sys.argv[1:])
run.SPAN, real = 3, Kept.write
def write(kept, first, answers):
    if first == 6: os.kill(os.getpid(), signal.SIGKILL)
    real(kept, first, answers)
Kept.write = write
options, grid = subject.ModelOptions(store, batch_size=1, threads=1), subject.Grid((2, 5), (1, 2))
request = subject.EvaluationRequest((bundle,), options=options, grid=grid, work=work)
subject.evaluate(request, subject.read_tasks(subject.task_files([str(questions)])))
"""


def test_killed_in_the_middle_it_loses_one_span(glimmer, request_of, asked, questions_file, spans, tmp_path):
    request = request_of(glimmer.bundle)
    unbroken = report_of(replace(request, work=None), asked)
    arguments = [glimmer.bundle, glimmer.store, questions_file, request.work]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    spans.clear()
    assert report_of(request, asked) == unbroken
    assert spans == [2]


def test_answers_that_were_damaged_are_asked_for_again(glimmer, request_of, asked, spans):
    request = request_of(glimmer.bundle)
    first = report_of(request, asked)
    files = sorted(request.work.glob("0-*.json"))
    assert [path.name for path in files] == ["0-00000.json", "0-00003.json", "0-00006.json"]
    files[0].write_bytes(files[0].read_bytes()[:-20])
    files[1].write_text(files[1].read_text(encoding="utf-8").replace("true", "false").replace("[0, 1]", "[1, 0]"))
    files[2].write_bytes(files[1].read_bytes())  # sound, and in another's place
    spans.clear()
    assert report_of(request, asked) == first
    assert spans == [3, 3, 2]


def test_only_the_same_evaluation_continues(glimmer, request_of, asked, spans, exported, tmp_path):
    request = request_of(glimmer.bundle)
    evaluate(request, asked)
    other = [*asked[:-1], replace(asked[-1], task="other")]
    for changed, rows, name in (
        (replace(request, models=(glimmer.checkpoint,)), asked, "models"),
        (request, other, "questions"),
        (request, asked[:-1], "questions"),
        (replace(request, grid=Grid((2, 5), (1,))), asked, "grid"),
        (replace(request, options=replace(request.options, batch_size=2)), asked, "batch_size 2, as asked for"),
        (replace(request, options=replace(request.options, compute_precision="fp32")), asked, "compute_precision"),
    ):
        with pytest.raises(OutputError, match=f"unfinished evaluation .*expected {name}"):
            evaluate(changed, rows)
    assert spans == [3, 3, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"models": 1}'])
def test_a_damaged_plan_is_refused(glimmer, request_of, asked, spans, content):
    request = request_of(glimmer.bundle)
    request.work.mkdir()
    (request.work / "plan.json").write_bytes(content)
    with pytest.raises(OutputError, match=f"remove {request.work} to begin anew"):
        evaluate(request, asked)
    assert spans == []


def test_a_folder_of_something_else_is_left_alone(glimmer, request_of, asked, spans, tmp_path):
    request = request_of(glimmer.bundle)
    write_rows(request.work.parent / "rows.jsonl", [])
    with pytest.raises(OutputError, match=r"the work of an evaluation, or nothing, found asked.jsonl"):
        evaluate(replace(request, work=tmp_path), asked)
    request.work.symlink_to(tmp_path)
    with pytest.raises(OutputError, match="a link to"):
        evaluate(request, asked)
    request.work.unlink()
    request.work.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"a place that can be written"):
        evaluate(request, asked)
    assert spans == []
