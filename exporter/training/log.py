"""What is told of a training as it goes: a live line, a line of JSON a step, and TensorBoard if that is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from glimmer_export.exporter.files.links import require_no_link, require_no_link_below
from glimmer_export.exporter.files.whole_file import replace_file, write_errors

if TYPE_CHECKING:
    from rich.console import Console

    from glimmer_export.exporter.training.trainer import Report

__all__ = ["LOG", "TENSORBOARD", "TrainingLog", "log_files", "progress_line"]

LOG, TENSORBOARD = "log.jsonl", "tensorboard"
STEPS_PER_PLAIN_LINE = 50


class TrainingLog:
    """`log.jsonl` and, if the package is there, the folder `tensorboard`, both below one directory.

    Lines are held until `flush`, which goes with saving the state: a log never tells of steps that a resumed training
    does again.
    """

    def __init__(self, directory: Path, step: int) -> None:
        """Continue behind `step`: what was told of later steps is taken back. Raises OutputError."""
        self._directory = directory
        self._lines: list[str] = []
        self._writer: Any = None
        path = directory / LOG
        with write_errors(directory):
            require_no_link(directory.parent, [f"{directory.name}/{LOG}"], subject=f"unfinished training {directory}")
            directory.mkdir(parents=True, exist_ok=True)
            if path.exists():
                told = path.read_text(encoding="utf-8").splitlines(keepends=True)
                replace_file(path, "".join(line for line in told if _step(line) <= step).encode())
            if find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(directory / TENSORBOARD), purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """One step's figures, or a dev evaluation's."""
        self._lines.append(json.dumps({"step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what was held; raises OutputError."""
        with write_errors(self._directory):
            with (self._directory / LOG).open("a", encoding="utf-8") as stream:
                stream.writelines(self._lines)
            self._lines.clear()
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Nothing is told from here on."""
        if self._writer is not None:
            self._writer.close()


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
