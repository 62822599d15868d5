"""The command line. `main` turns errors of input into exit code 2; a bug keeps its traceback."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.cli.extras import EXTRAS, missing_extra
from runtime.contract import GlimmerError

__all__ = ["input_errors_reported", "main"]


def main() -> None:
    """Entry point of `glimmer-export`."""
    with input_errors_reported():
        from exporter.cli.app import app

        app()


@contextmanager
def input_errors_reported() -> Iterator[None]:
    """Turn an error of input, or a package that no extra has brought, into a line on stderr and exit code 2.

    What stdout's encoding has no character for is printed as an escape, as on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except GlimmerError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        _fail(missing_extra(package))


def _fail(error: GlimmerError) -> None:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.exit(2)
