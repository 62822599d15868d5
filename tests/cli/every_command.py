"""Every command with what it must be given, and its options, read off the functions that the commands are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

from glimmer_export.exporter.cli.app import app

__all__ = ["COMMANDS", "Command"]

ENOUGH = {"init": ("--random", "small"), "bench": ("--random", "small"), "cost": ("--model", "small")}
"""What commands need beside arguments and required options, to come to look at the others."""


@dataclass(frozen=True)
class Command:
    """A command by the words that name it; its parameters are by their Python names."""

    path: tuple[str, ...]
    kinds: dict[str, Any]
    infos: dict[str, ParameterInfo]
    required: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.path)

    def option(self, name: str) -> str | None:
        """What a parameter is called; None for an argument."""
        info = self.infos[name]
        return (info.param_decls or (f"--{name.replace('_', '-')}",))[0] if isinstance(info, OptionInfo) else None

    def words(self, value: object) -> list[object]:
        """The least command line, with `value` for what has no choices."""
        words: list[object] = [*self.path, *ENOUGH.get(self.path[0], ())]
        for name in self.required:
            kind, option = self.kinds[name], self.option(name)
            choices = isinstance(kind, type) and issubclass(kind, Enum)
            words += [*([] if option is None else [option]), next(iter(kind)).value if choices else value]
        return words

    def of_kind(self, *kinds: type) -> list[str]:
        """Parameters that take one of these, or lists of them, or none."""
        return [name for name, kind in self.kinds.items() if {kind, *get_args(kind)} & {*kinds}]


def _commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[Command]:
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, (*path, str(inner.name)))
    for command in group.registered_commands:
        assert command.callback is not None
        hints = get_type_hints(command.callback, include_extras=True)
        pairs = {name: get_args(hint) for name, hint in hints.items() if hasattr(hint, "__metadata__")}
        parameters = inspect.signature(command.callback).parameters
        yield Command(
            (*path, command.name or command.callback.__name__),
            {name: kind for name, (kind, _) in pairs.items()}, {name: info for name, (_, info) in pairs.items()},
            tuple(name for name in pairs if parameters[name].default is inspect.Parameter.empty),
        )


COMMANDS = list(_commands(app))
assert {Path, str, int} <= {kind for command in COMMANDS for kind in command.kinds.values()}
