"""The command line. `main` turns errors of input into exit code 2; a bug keeps its traceback."""

from __future__ import annotations

import sys

from exporter.cli.extras import EXTRAS, missing_extra
from runtime.contract import GlimmerError

__all__ = ["main"]


def main() -> None:
    """Entry point of `glimmer-export`."""
    try:
        from exporter.cli.app import app

        app()
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
