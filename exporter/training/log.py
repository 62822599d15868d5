"""What is told of a training as it goes: a live line, a line of JSON a step, and TensorBoard if that is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from glimmer_export.exporter.files.links import require_no_link, require_no_link_below
from glimmer_export.exporter.files.whole_file import remove_unfinished, replace_file, write_errors

if TYPE_CHECKING:
    from rich.console import Console

    from glimmer_export.exporter.training.trainer import Report

__all__ = ["LOG", "TENSORBOARD", "TrainingLog", "log_files", "progress_line"]

LOG, TENSORBOARD = "log.jsonl", "tensorboard"
STEPS_PER_PLAIN_LINE = 50


class TrainingLog:
    """`log.jsonl` and, if the package is there, the folder `tensorboard`, both below one directory.

    A step is written when it is told of. What is told of steps that a resumed training does again is taken back.
    """

    def __init__(self, directory: Path, step: int) -> None:
        """Continue behind `step`. Raises OutputError."""
        self._path = directory / LOG
        self._events: _Events | None = None
        with write_errors(directory):
            require_no_link(directory.parent, [f"{directory.name}/{LOG}"], subject=f"unfinished training {directory}")
            directory.mkdir(parents=True, exist_ok=True)
            remove_unfinished(directory, LOG)
            if self._path.exists():
                told = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
                replace_file(self._path, "".join(line for line in told if _step(line) <= step).encode())
            if find_spec("tensorboard") is not None:
                self._events = _Events(directory / TENSORBOARD, step)

    def add(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """One step's figures, or a dev evaluation's; raises OutputError."""
        with write_errors(self._path.parent):
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, **values}) + "\n")
            if self._events is not None:
                self._events.add(step, {name: value for name, value in values.items() if not isinstance(value, str)})


class _Events:
    """TensorBoard's events. Its own writer has a thread, of which a full disk makes a traceback and no error."""

    def __init__(self, directory: Path, step: int) -> None:
        """Continue behind `step` in a file of its own: TensorBoard reads files in the order of their names."""
        require_no_link(
            directory.parent.parent, [f"{directory.parent.name}/{directory.name}"],
            subject=f"unfinished training {directory.parent}",
        )
        directory.mkdir(exist_ok=True)
        self._path = directory / f"events.out.tfevents.{step:010d}"
        for later in directory.glob("events.out.tfevents.*"):
            if later.name >= self._path.name:
                later.unlink()
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step + 1, file_version="brain.Event:2")
        # By this TensorBoard forgets what earlier files tell of the steps from here on.
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by their names; raises OSError."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._path.open("ab") as stream:
            RecordWriter(stream).write(Event(wall_time=time.time(), **fields).SerializeToString())


def log_files(directory: Path) -> dict[str, bytes]:
    """What a log has written below its directory, by its paths there; raises OutputError for a link among them."""
    require_no_link_below(directory, TENSORBOARD, subject=f"unfinished training {directory}")
    paths = [directory / LOG, *sorted((directory / TENSORBOARD).glob("*"))]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def _step(line: str) -> int:
    """The step that a line tells of; more than any if it is no line of ours."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


@contextmanager
def progress_line(console: Console, *, shown: bool = True) -> Iterator[Callable[[Report], None]]:
    """Yield a function that shows a report: a live line on a terminal, else a line every fifty steps."""
    if not shown:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield lambda report: _print_line(console, report)
        return
    with Progress(BarColumn(), TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda report: progress.update(task, completed=report.fraction_done, description=_line(report))


def _print_line(console: Console, report: Report) -> None:
    if report.step % STEPS_PER_PLAIN_LINE == 0:
        console.print(_line(report), highlight=False, soft_wrap=True)


def _line(report: Report) -> str:
    minutes, seconds = divmod(round(report.seconds_left), 60)
    best = "" if report.dev_exact_match is None else f"  dev EM {report.dev_exact_match:.3f}"
    return (
        f"phase {report.phase + 1}/{report.num_phases} step {report.step:4d}  loss {report.loss:.3f}  "
        f"EM {report.exact_match:.3f}{best}  at most {minutes}:{seconds:02d} left"
    )
