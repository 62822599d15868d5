"""The state of a training on disk: saved every so many steps, and taken up again by the same training alone."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from glimmer_export.exporter.checkpoint.pickle_files import load_failure, torch_errors
from glimmer_export.exporter.files.links import require_no_link
from glimmer_export.exporter.files.whole_file import remove_unfinished, replace_file, write_errors
from glimmer_export.exporter.training.log import LOG, TENSORBOARD
from glimmer_export.exporter.training.trainer import Trainer
from glimmer_export.runtime.contract import OutputError, check_regular, is_there

__all__ = ["LAST", "best_of_step", "has_state", "keep_best", "remove_state", "restore_state", "save_state"]

STATE = "state.pt"
BEST, LAST = "best-", "last"
"""Checkpoints beside the state: that of the best exact match on the dev rows, with its step in the name, and the last
good weights before a step that failed."""


def best_of_step(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept while it is the best.

    A new best stands beside the one before until a state that knows of it is on the disk.
    """
    return directory / f"{BEST}{step}"


def keep_best(directory: Path, step: int) -> None:
    """Remove every best checkpoint but that of a step (0: all), and what killed writes have left; raises OutputError.

    Raises it too if that checkpoint is not there.
    """
    kept = best_of_step(directory, step)
    with write_errors(directory):
        for name in (f"{BEST}*", f".{BEST}*.glimmer-*", f".{LAST}.glimmer-*"):
            for path in directory.glob(name):
                if path != kept:
                    require_no_link(directory, [path.name], subject=f"unfinished training {directory}")
                    shutil.rmtree(path, ignore_errors=True)
    if step and not kept.is_dir():
        raise OutputError(
            f"unfinished training {directory}", expected=f"{kept.name}, the checkpoint that is its best so far",
            found="none", fix=f"remove {directory} to begin anew",
        )


def save_state(trainer: Trainer, settings: Mapping[str, Any], directory: Path) -> None:
    """Write the state into `directory`, in place of an older one; raises OutputError if it cannot be written.

    `settings` is what decides the result, as plain data: only a training of the same may continue from the state.
    """
    # torch.save to a file hides the system's error number, without which a full disk has no name.
    content = io.BytesIO()
    torch.save({"settings": dict(settings), **trainer.state()}, content)
    with write_errors(directory):
        _check_own(directory)
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(directory / STATE, content.getvalue())


def has_state(directory: Path) -> bool:
    """Whether a training has left a state in `directory`."""
    return is_there(directory / STATE)


def restore_state(trainer: Trainer, settings: Mapping[str, Any], directory: Path) -> bool:
    """Continue from the state in `directory`, if there is one, and say whether there is.

    Raises OutputError if it is damaged, is no such state, or is that of a training with other settings.
    """
    path = directory / STATE
    _check_own(directory)
    if not has_state(directory):
        return False
    remove = f"remove {directory} to begin anew"
    check_regular(path, error=OutputError, subject=str(path), fix=remove)

    def refused(error: BaseException) -> OutputError:
        return OutputError(str(path), expected="the state of a training", found=load_failure(error), fix=remove)

    with torch_errors(refused):
        state = _load(path)
    if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
        raise OutputError(
            str(path), expected="the state of a training, with its settings",
            found=f"a {type(state).__name__} without them", fix=remove,
        )
    for name, asked in settings.items():
        if (found := state["settings"].get(name)) != asked:
            raise OutputError(
                f"unfinished training {directory}", found=_difference(found, asked),
                expected=f"the {name} of this one" if isinstance(asked, dict) else f"{name} {asked}, as asked for",
                fix=f"run it with the options that it began with, or {remove}",
            )
    try:
        trainer.restore(state)
    except ValueError as error:
        raise OutputError(str(path), expected="the state of this training", found=str(error), fix=remove) from None
    return True


def _difference(found: object, asked: object) -> str:
    """What another training has instead: of fields, the first that differs."""
    if isinstance(found, dict) and isinstance(asked, dict):
        name = next((name for name in asked if found.get(name) != asked[name]), "")
        return f"{name} {found.get(name)}"[:120]
    return str(found)[:120]


def _load(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not look at them
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} with another checksum than it was written with")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_own(directory: Path) -> None:
    """Raise OutputError if the directory or the state in it is a link: nobody named either."""
    require_no_link(directory.parent, [f"{directory.name}/{STATE}"], subject=f"unfinished training {directory}")


def remove_state(directory: Path) -> None:
    """Remove what a training keeps in its folder, and the folder unless there is something else in it.

    The state goes last: as long as it is there, the training's checkpoint can be known for its own.
    """
    with write_errors(directory):
        _check_own(directory)
        keep_best(directory, 0)
        for name in (LAST, TENSORBOARD):
            require_no_link(directory.parent, [f"{directory.name}/{name}"], subject=f"unfinished training {directory}")
            shutil.rmtree(directory / name, ignore_errors=True)
        for name in (LOG, STATE):
            (directory / name).unlink(missing_ok=True)
            if directory.is_dir():
                remove_unfinished(directory, name)
    with suppress(OSError):
        directory.rmdir()
