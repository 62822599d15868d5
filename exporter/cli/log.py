"""What `-v` and `-q` show of the logger `glimmer_export`, on standard error."""

from __future__ import annotations

import logging

from glimmer_export.exporter.report.visible import visible

__all__ = ["log_to_stderr"]


class _Lines(logging.Formatter):
    """One line a record, of which a terminal obeys nothing."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def log_to_stderr(verbose: int, *, quiet: bool) -> None:
    """Show what is logged: warnings, with `verbose` 1 what is done, with 2 details too; errors alone if `quiet`."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("glimmer_export")
    logger.handlers[:] = [handler]  # in place of an earlier command's, in the same process
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
