"""Files of questions that name their tasks on the command line: FILE=TASK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.contract.files import is_there

__all__ = ["TaskFile", "task_file", "task_name"]

ENDINGS = {".gz", ".json", ".jsonl", ".ndjson", ".zst"}
"""What is no part of a task's name, if that is the file's."""
STDIN = Path("-")


@dataclass(frozen=True)
class TaskFile:
    """A file of rows, or a folder of files, and the task that they are of; None: each row's own, or the file's name."""

    path: Path
    task: str | None = None


def task_file(argument: str) -> TaskFile:
    """FILE, or FILE=TASK. What is there under the whole name is a file; otherwise the task stands behind the last `=`.

    FILE may be a folder or a pattern too, or `-` for standard input. Raises OptionError for a task without a name, and
    if neither is there.
    """
    whole = Path(argument)
    path, equals, task = argument.rpartition("=")
    if not equals or _names_files(whole):
        return TaskFile(whole)
    if not path or not _names_files(Path(path)):
        raise OptionError(
            f"rows {argument}", expected="a file, or FILE=TASK", found=f"neither {argument} nor {path or 'a file'}",
            fix="name a file that is there",
        )
    if not task.strip():
        raise OptionError(
            f"rows {argument}", expected="FILE=TASK", found="no task behind the =", fix="name the task, or leave out ="
        )
    return TaskFile(Path(path), task.strip())


def _names_files(path: Path) -> bool:
    """Whether a path is of something that is there, or a pattern of some files."""
    return path == STDIN or is_there(path) or next(path.parent.glob(path.name or "."), None) is not None


def task_name(path: Path) -> str:
    """A file's name without its endings."""
    while path.suffix.lower() in ENDINGS:
        path = path.with_suffix("")
    return path.name
