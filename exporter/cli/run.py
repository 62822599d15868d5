"""Read the command line and run its command."""

from __future__ import annotations

import os
import sys
from typing import Any

from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import OptionError

__all__ = ["may_download", "run"]

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Tells the libraries of Hugging Face that commands download nothing; not the runtime's to say, which others import."""
_said: set[str] = set()
"""Those of OFFLINE that were said here, and not by the user."""

UNREADABLE = range(0xDC80, 0xDD00)
"""What Python makes of a byte of the command line that is not of its encoding."""


def run() -> None:
    """Run the command that sys.argv names; ends by SystemExit. A wrong use is a message of typer's, and exit code 2.

    Raises OptionError for an argument that is no text: the libraries that open files take names in UTF-8 alone.
    """
    _said.update(name for name in OFFLINE if name not in os.environ)
    os.environ.update(dict.fromkeys(_said, "1"))
    for argument in sys.argv[1:]:
        if any(ord(character) in UNREADABLE for character in argument):
            raise OptionError(
                f"argument {argument!r}", expected=f"text in {sys.getfilesystemencoding()}",
                found="bytes that are none", fix="write it so; a file can be renamed",
            )
    import typer

    from glimmer_export.exporter.cli.app import command

    try:
        code = command(standalone_mode=False)
    except _usage_error() as error:
        from typer.rich_utils import rich_format_error

        error.message = visible(error.message)
        rich_format_error(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
    sys.exit(code or 0)


def may_download() -> None:
    """Take OFFLINE back, for a command that is asked for a model of the hub; what the user has set stays."""
    for name in _said:
        os.environ.pop(name, None)


def _usage_error() -> Any:
    """The base of what typer says of a wrong use: click's of that name, which newer releases hold a copy of."""
    import typer

    return typer.BadParameter.__mro__[2]
