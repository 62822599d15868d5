"""What the operating system refuses is a named error wherever it happens; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.cli.conftest import snapshot
from tests.cli.every_command import COMMANDS

WITH_PATHS = [command for command in COMMANDS if command.of_kind(Path)]
FULL = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ELOOP]


def raising(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in FULL),
        PermissionError(errno.EACCES, "Permission denied", "/some/\x1b[31mfile"),
        OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300),
        OSError(errno.EPROTO, "of no known kind, but of a file", "/some/file"),
        OSError(errno.EXDEV, "Invalid cross-device link", "/some/file", None, "/other/file"),
        MemoryError(), MemoryError("Unable to allocate 256. GiB"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_the_system_refuses_is_named(cli, monkeypatch, error):
    monkeypatch.setattr("glimmer_export.exporter.cli.run.run", raising(error))
    done = cli("inspect", "x")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("OperatingSystemError: ")
    for part in (getattr(error, "strerror", None), getattr(error, "filename2", None)):
        assert part is None or part in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    "error",
    [AttributeError("a bug"), KeyError("a bug"), ValueError("a bug"), OSError(errno.ECONNREFUSED, "of no file")],
    ids=repr,
)  # fmt: skip
def test_a_bug_keeps_its_traceback(cli, monkeypatch, error):
    monkeypatch.setattr("glimmer_export.exporter.cli.run.run", raising(error))
    with pytest.raises(type(error)) as raised:
        cli("inspect", "x")
    assert raised.value is error


@pytest.mark.parametrize("command", WITH_PATHS, ids=str)
@pytest.mark.parametrize("kind", ["too long", "not UTF-8", "a link to itself", "below a file"])
def test_paths_that_the_system_refuses_in_every_place_of_every_command(cli, tmp_path, monkeypatch, command, kind):
    monkeypatch.chdir(tmp_path)
    loop, file = tmp_path / "loop", tmp_path / "file"
    loop.symlink_to(loop)
    file.touch()
    value = {
        "too long": "x" * 300, "not UTF-8": os.fsdecode(b"x\xff"), "a link to itself": loop, "below a file": file / "x",
    }[kind]  # fmt: skip
    before = snapshot(tmp_path) if kind == "not UTF-8" else None
    for name in command.of_kind(Path):
        option = command.option(name)
        words = command.words(value if name in command.required else "nowhere")
        done = cli(*words, *([] if option is None else [option, str(value)]))
        assert done.code == 2, done.out
        assert "Error" in done.err, done.err
        assert "Traceback" not in done.err
    assert before is None or snapshot(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
