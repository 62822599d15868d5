"""docs/cli.md, from the commands: `python -m tests.docs.cli_page` writes it, and a test says if it is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer

from glimmer_export.exporter.cli.app import app
from tests.docs.pages import DOCS

__all__ = ["PAGE", "commands", "page"]

PAGE = DOCS / "cli.md"
WORDS = {str: "text", Path: "path", int: "number", float: "number"}
HEAD = """\
# Commands

Written by `python -m tests.docs.cli_page` from the commands; `glimmer-export COMMAND --help` says the same. If an
option has no default here, it is left out unless you give it, or its default depends on the bundle or the machine, as
its text says. Every command has `--help`, `-h`."""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, command in commands():
        paragraphs = (_text(part) for part in (command.help or "").split("\n\n"))
        parts += [f"## {name}", *paragraphs, *_parameters(command)]
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command, by the words that call it, in the order of the help."""
    for name, command in typer.main.get_command(app).commands.items():
        if command.hidden:
            continue
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {word}", each) for word, each in below.items() if not each.hidden)


def _parameters(command: Any) -> Iterator[str]:
    types = get_type_hints(command.callback)
    rows = [_row(parameter, types[parameter.name]) for parameter in command.params if not _is_hidden(parameter)]
    if rows:
        yield "\n".join(["| | | |", "| --- | --- | --- |", *rows])


def _is_hidden(parameter: Any) -> bool:
    return parameter.hidden or parameter.name == "help"


def _row(parameter: Any, annotation: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.metavar or parameter.name.upper()]
    about, default = [_text(parameter.help)] if parameter.help else [], parameter.default
    if parameter.required:
        about.append("**Required.**")
    elif isinstance(default, bool):
        if parameter.secondary_opts:  # a pair, such as --verify and --no-verify
            about.append(f"Default: `{(parameter.opts if default else parameter.secondary_opts)[0]}`.")
    elif default not in (None, "", ()) and not callable(default):
        about.append(f"Default: `{default}`.")
    return f"| {', '.join(f'`{name}`' for name in names)} | {_kind(parameter, annotation)} | {' '.join(about)} |"


def _kind(parameter: Any, annotation: Any) -> str:
    """What may be given: names to choose from, or the type, less `None`, with its bounds."""
    types = [each for each in get_args(annotation) or (annotation,) if each is not type(None)]
    of_list = list in (get_origin(annotation), *(get_origin(each) for each in types))
    metavar = (parameter.metavar or "") if parameter.param_type_name == "option" else ""
    if metavar.startswith("["):
        words = ", ".join(f"`{name}`" for name in metavar.strip("[]").split("|"))
    elif "|" in metavar:
        words = " or ".join(metavar.lower().split("|"))
    else:
        (kind,) = types
        if kind is bool:
            return "flag"
        words = WORDS[get_args(kind)[0] if get_args(kind) else kind]
    least, most = parameter.min, parameter.max
    if least is not None and most is not None:
        words += f", {least} to {most}"
    elif least is not None or most is not None:
        words += f", {least} or more" if most is None else f", at most {most}"
    return f"{words}; repeatable" if of_list else words


def _text(help_text: str | None) -> str:
    return " ".join((help_text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
