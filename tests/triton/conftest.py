"""The command line, as tests/cli runs it."""

from tests.cli.conftest import cli, refused

__all__ = ["cli", "refused"]
