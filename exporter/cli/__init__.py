"""The command line: `main` is the entry point, and imports nothing before it can be stopped."""

from __future__ import annotations

from glimmer_export.exporter.cli.stopping import Stopping

__all__ = ["main"]


def main() -> None:
    """Entry point of `glimmer-export`: errors of input are a line on stderr and exit code 2; a bug keeps its traceback.

    Nothing is downloaded: the libraries of Hugging Face are told so, if the user has not told them otherwise.
    """
    with Stopping() as stopping:
        from glimmer_export.exporter.cli.streams import open_closed_streams

        open_closed_streams()  # before a pipe of ours takes the place of one
        stopping.watch()
        from glimmer_export.exporter.cli.boundary import input_errors_reported

        with input_errors_reported():
            from glimmer_export.exporter.cli.run import run

            run()
