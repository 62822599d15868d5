"""Files of questions, each question with the name of its task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.calibration.questions import Question, question_files, read_questions
from glimmer_export.exporter.answering.task_files import TaskFile, task_file, task_name

__all__ = ["TaskQuestion", "paths_of", "read_tasks", "task_files"]


@dataclass(frozen=True)
class TaskQuestion:
    """A question, and the name of its task."""

    question: Question
    task: str


def task_files(arguments: Iterable[str]) -> list[TaskFile]:
    """FILE or FILE=TASK, each; raises OptionError for a task without a name."""
    return [task_file(argument) for argument in arguments]


def paths_of(files: Iterable[TaskFile]) -> list[Path]:
    """What is read of them; raises QuestionFileError if there is none, or if two name the same."""
    return question_files([file.path for file in files])


def read_tasks(files: Sequence[TaskFile], limit: int | None = None) -> list[TaskQuestion]:
    """At most `limit` questions of each file, in even steps over it.

    A question's task is the one named with its file, else its row's own, else the file's name. Raises QuestionFileError
    as `read_questions`.
    """
    paths_of(files)
    return [
        TaskQuestion(question, file.task or question.task or task_name(path))
        for file in files
        for path in question_files(file.path)
        for question in read_questions(path, limit)
    ]
