"""Options that take one of the names that a registry has, or a configuration: ours by its name, or a YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from glimmer_export.exporter.config.read import NAME_OR_FILE, known

__all__ = ["TargetOption", "one_of"]


def one_of(option: str, names: Iterable[str], text: str = "") -> Any:
    """An option of one of these names; it shows them in the help, as what stands in their place, and completes them."""
    choices = tuple(names)

    def parse(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, choices))}.")
        return value

    def complete(incomplete: str) -> list[str]:
        return [name for name in choices if name.startswith(incomplete)]

    metavar = f"[{'|'.join(choices)}]"
    return typer.Option(option, parser=parse, metavar=metavar, autocompletion=complete, help=text)


TargetOption = Annotated[
    str, typer.Option("--target", metavar=NAME_OR_FILE, help=f"Machine that is to run the graphs: {known('target')}.")
]
