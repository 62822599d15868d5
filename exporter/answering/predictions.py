"""Predictions in KILT's format: an answer, and the pages of the passages that it was read from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from glimmer_export.calibration.questions import Question
from glimmer_export.runtime import Answer, Passage
from glimmer_export.runtime.contract import QuestionFileError

__all__ = ["check_ids", "kilt_predictions", "ranked_pages"]


def kilt_predictions(questions: Sequence[Question], answers: Sequence[Answer]) -> str:
    """The content of a file of predictions, one KILT row a question; an answer that is None becomes an empty one.

    KILT's script reads `answer` and `provenance`; `log_probability` stands beside them, null where it is not known.
    """
    return "".join(
        json.dumps({"id": question.qid, "input": question.question, "output": [_output(answer)]}) + "\n"
        for question, answer in zip(questions, answers, strict=True)
    )


def ranked_pages(answer: Answer) -> list[Passage]:
    """The best passage of each Wikipedia page, best first: by the model's scores, or as retrieved where it has none.

    Those that were not read are among them, and those that name no page are not.
    """
    passages = list(answer.passages)
    if all(item.score is not None for item in passages):
        passages.sort(key=lambda item: -(item.score or 0.0))
    best: dict[str, Passage] = {}
    for item in passages:
        if item.passage.wikipedia_id is not None:
            best.setdefault(item.passage.wikipedia_id, item.passage)
    return list(best.values())


def check_ids(questions: Sequence[Question]) -> None:
    """Raise QuestionFileError where two questions have one id, read as strings: KILT's script refuses them."""
    first: dict[str, Question] = {}
    for question in questions:
        earlier = first.setdefault(question.qid.strip(), question)
        if earlier is not question:
            raise QuestionFileError(
                f"question {question.question[:60]!r}", expected="an id of its own, to name its prediction by",
                found=f"{question.qid!r}, the id of {earlier.question[:60]!r}", fix="rename one of the two",
            )


def _output(answer: Answer) -> dict[str, object]:
    provenance = [{"wikipedia_id": page.wikipedia_id, "title": page.title} for page in ranked_pages(answer)]
    return {"answer": answer.answer or "", "log_probability": answer.log_probability, "provenance": provenance}
