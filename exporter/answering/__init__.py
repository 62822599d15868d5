"""Files of questions through a session, graded. Runs on devices without torch."""

from glimmer_export.exporter.answering.file import AnsweringReport, answer_questions, choice_to_json
from glimmer_export.exporter.answering.metrics import Grade, exact_match, grade, token_f1

__all__ = [
    "AnsweringReport",
    "Grade",
    "answer_questions",
    "choice_to_json",
    "exact_match",
    "grade",
    "token_f1",
]
