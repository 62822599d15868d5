"""The scores of a file of questions against those of KILT's own script, row by row and in all."""

from __future__ import annotations

import io
import json
from statistics import fmean
from typing import Any

import pytest

from glimmer_export.calibration.public_fields import evidence_from_outputs
from glimmer_export.calibration.questions import Question, read_questions
from glimmer_export.exporter.answering import answer_questions
from glimmer_export.exporter.answering.metrics import grade
from glimmer_export.exporter.answering.scores import Scores, r_precision, recall_at, rouge_l_scorer, scores_table
from glimmer_export.exporter.report.tables import ReportTable, print_table
from glimmer_export.exporter.report.terminal import console
from glimmer_export.runtime import Answer, Passage, RankedPassage
from tests.answering.kilt_table import KiltRow, kilt_rows

DOWNSTREAM = ("accuracy", "em", "f1", "rouge_l", "kilt_accuracy", "kilt_em", "kilt_f1", "kilt_rouge_l")


class Answering:
    """Stands for a session that gives each question the answer that is known beforehand."""

    backend_choice = None
    store = None

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers

    def answer_many(self, questions, top_k, top_m, *, mass, passages):
        return [self.answers[question] for question in questions]


def passages(pages) -> tuple[RankedPassage, ...]:
    """Two passages of each page, ranked by score against the order of retrieval."""
    best_last = [Passage(f"{page}#{part}", "t", "x", page) for page in reversed(pages) for part in (1, 0)]
    return tuple(RankedPassage(passage, 1.0, float(place), read=False) for place, passage in enumerate(best_last))


def report_of(rows: list[KiltRow], tmp_path, task=lambda place: None):
    """What `answer` says of rows as KILT's files have them."""
    path = tmp_path / "questions.jsonl"
    content = [
        {"id": place, "input": str(place), "output": row.output, "task": task(place)} for place, row in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    answers = {
        str(place): Answer(str(place), row.answer, passages=passages(row.pages), milliseconds={"total": 1.0})
        for place, row in enumerate(rows)
    }
    return answer_questions(Answering(answers), read_questions(path), batch_size=500)


def scored_rows() -> list[KiltRow]:
    """Those for which KILT's script has a score."""
    return [row for row in kilt_rows() if row.kilt is not None and grade(row.answer, row.answers) is not None]


def test_pages_are_ranked_as_by_kilts_script():
    for row in kilt_rows():
        evidence = evidence_from_outputs(row.output)
        found = [r_precision(row.pages, evidence), *(recall_at(k, row.pages, evidence) for k in (2, 5, 10, 20))]
        assert found == pytest.approx(row.retrieval, abs=1e-11), row


def test_rouge_l_is_that_of_kilts_script():
    pytest.importorskip("rouge", reason="needs the extra kilt")
    score = rouge_l_scorer()
    for row in scored_rows():
        assert score(row.answer, row.answers) == pytest.approx(row.kilt[3], abs=1e-11), row


def test_a_file_scores_what_kilts_script_gives_it(tmp_path):
    rows = scored_rows()
    report = report_of(rows, tmp_path, task=lambda place: ("a", "b", None)[place % 3])
    for scores, chosen in (
        (report.scores, rows), (report.tasks["a"], rows[::3]), (report.tasks["b"], rows[1::3]),
    ):
        found = scores.to_json()
        expected = {name: fmean(row.kilt[place] for row in chosen) for place, name in enumerate(DOWNSTREAM)}
        if rouge_l_scorer() is None:
            assert any("glimmer-export[kilt]" in note for note in report.notes)
            expected.update(rouge_l=None, kilt_rouge_l=None)
        assert {name: found[name] for name in DOWNSTREAM} == pytest.approx(expected, abs=1e-11)
        assert found["graded"] == len(chosen)
        assert found["r_precision"] == pytest.approx(fmean(row.retrieval[0] for row in chosen), abs=1e-11)
        for place, k in enumerate((5, 10, 20), start=2):
            assert found["recall"][str(k)] == pytest.approx(fmean(row.retrieval[place] for row in chosen), abs=1e-11)
    assert list(report.tasks) == ["a", "b"]


def test_what_no_row_allows_is_not_measured(tmp_path):
    blind = KiltRow(({"provenance": [{"title": "x"}]},), "x", ("1",), None, ())
    unnamed = KiltRow(({"answer": "x", "provenance": []}, {"answer": "y"}), "x", ("1",), None, ())
    named = KiltRow(({"answer": "x", "provenance": [{"wikipedia_id": "1"}]},), "x", (), None, ())
    scores = report_of([blind], tmp_path).scores
    assert (scores.graded, scores.em, scores.rouge_l, scores.kilt_em, scores.r_precision) == (0, None, None, None, None)
    scores = report_of([unnamed], tmp_path).scores
    assert (scores.graded, scores.em, scores.accuracy, scores.recall, scores.kilt_em) == (1, 1.0, 1.0, None, None)
    assert report_of([KiltRow(unnamed.output, "x", (), None, ())], tmp_path).scores.graded == 1
    report = report_of([named], tmp_path)
    assert (report.em, report.scores.r_precision) == (1.0, None)
    assert any("wikipedia_id" in note for note in report.notes)
    # Beside rows whose evidence is named, one that names none counts as it does to KILT's script.
    scores = report_of([unnamed, KiltRow(named.output, "x", ("2", "1"), None, ())], tmp_path).scores
    assert (scores.r_precision, scores.recall, scores.kilt_em) == (0.0, {5: 0.5, 10: 0.5, 20: 0.5}, 0.0)


def test_an_unanswered_question_is_wrong_whatever_its_golds(tmp_path):
    questions = [Question("1", "when?", ("July 1886",), None, ()), Question("2", "what?", ("The The",), None, ())]
    session = Answering({"when?": Answer("when?", "July 1886."), "what?": Answer("what?", None)})
    report = answer_questions(session, questions)
    assert (report.em, report.f1, report.scores.accuracy, report.scores.graded) == (0.5, 0.5, 0.0, 2)


def test_a_sentence_too_long_for_the_package_leaves_rouge_l_out(tmp_path):
    pytest.importorskip("rouge", reason="needs the extra kilt")
    long = KiltRow(({"answer": f"word{' other' * 3000}"},), "word", (), None, ())
    report = report_of([long], tmp_path)
    assert (report.scores.rouge_l, report.em) == (None, 0.0)
    assert any("more words than the package" in note for note in report.notes)


def printed(report: Any, *, width: int = 300) -> str:
    """What a report prints on the console of the commands."""
    out = console()
    out.file, out.width = io.StringIO(), width
    if isinstance(report, ReportTable):
        print_table(report, out)
    else:
        report.print(out)
    return out.file.getvalue()


def test_what_is_printed(tmp_path):
    shown = printed(report_of(scored_rows()[:40], tmp_path, task=lambda place: f"[task{place % 2}]"))
    for word in ("exact match", "R-precision", "recall@20", "KILT F1", "[task0]", "[task1]"):
        assert word in shown
    shown = printed(answer_questions(Answering({"?": Answer("?", "x")}), [Question("1", "?", (), None, ())]))
    assert "exact match" in shown
    assert "KILT" not in shown


def test_a_tasks_scores_fit_a_terminal_of_80_columns():
    all_scores = Scores(9, 0.5, 0.5, 0.5, 0.5, 0.5, {1: 0.5, 5: 0.5, 10: 0.5, 20: 0.5}, 0.5, 0.5, 0.5, 0.5)
    shown = printed(scores_table({"[/nq]": all_scores, "hotpotqa": all_scores, "triviaqa": all_scores}), width=80)
    assert shown.count("0.5000") == 3 * 13
    assert "[/nq]" in shown
    assert "\u2026" not in shown
