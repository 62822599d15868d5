"""The command line, run in this process: an exception that it does not turn into a message fails the test by itself."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glimmer_export.exporter.cli import main
from glimmer_export.runtime.contract import GlimmerError, file_digest

__all__ = ["Cli", "Done", "snapshot"]


@dataclass(frozen=True)
class Done:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The report of a command with `--json`, which prints nothing else on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=pytest.fail)


Cli = Callable[..., Done]


def run_main(
    main: Callable[[], object], name: str, arguments: Sequence[object],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Done:
    """Run the command `name`, whose entry point is `main`, in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    code = 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        for number, handler in handlers.items():  # a command's own are for the rest of its process
            signal.signal(number, handler)
    printed = capsys.readouterr()
    return Done(code, printed.out, printed.err)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `glimmer-export` with these arguments."""
    monkeypatch.setenv("COLUMNS", "250")

    return lambda *arguments: run_main(main, "glimmer-export", arguments, monkeypatch, capsys)


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must refuse its input by a named error, and must leave the test's folder as it is."""

    def run(errors: type[GlimmerError] | tuple[type[GlimmerError], ...], *arguments: object) -> str:
        before = snapshot(tmp_path)
        done = cli(*arguments)
        assert done.code == 2, done.out + done.err
        named = errors if isinstance(errors, tuple) else (errors,)
        assert done.err.partition(":")[0] in [error.__name__ for error in named], done.err
        assert done.err.count("\n") == 1, done.err
        assert "Traceback" not in done.err
        assert done.out == ""
        assert snapshot(tmp_path) == before
        return done.err

    return run


def snapshot(directory: Path) -> dict[str, str]:
    """Everything below a directory: folders, links, and files with their digests."""

    def describe(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return "folder" if path.is_dir() else file_digest(path)

    return {str(path.relative_to(directory)): describe(path) for path in sorted(directory.rglob("*"))}
