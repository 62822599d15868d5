"""What every picture has in common: its formats, its bytes and the place where it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.publish import Inputs, check_file
from glimmer_export.runtime.contract import OptionError, OutputError

__all__ = ["FORMATS", "METADATA", "TEXT", "check_plot"]

FORMATS = {".png": "png", ".svg": "svg"}
TEXT: Any = {"svg.hashsalt": "glimmer-export", "text.parse_math": False}
"""A name between dollars is no formula; and the same figures give the same bytes."""
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}
"""Left out, so that the same figures give the same bytes."""


def check_plot(path: Path, *, overwrite: bool, inputs: Inputs = ()) -> Path:
    """Where to draw the picture, as `check_file` gives it.

    Raises OptionError for a format that is not drawn, OutputError if the file exists, is a directory or is not apart
    from `inputs`.
    """
    if path.suffix.lower() not in FORMATS:
        raise OptionError(
            "option --plot", expected=f"a file ending in {' or '.join(FORMATS)}", found=repr(path.name),
            fix="name such a file",
        )
    place = check_file(path, inputs)
    if path.exists() and not overwrite:
        raise OutputError(
            f"output {path}", expected="a file that does not exist yet", found="one that does",
            fix="name another or pass --overwrite",
        )
    return place
