"""A file appears whole, is written through no link, has the mode of a plain one, and leaves nothing for good."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.files.whole_file import (
    UNFINISHED,
    plain_mode,
    remove_unfinished,
    replace_file,
    whole_file,
    write_errors,
)
from glimmer_export.runtime.contract import OutputError

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from glimmer_export.exporter.files.whole_file import whole_file

with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_has_the_mode_of_a_plain_one(tmp_path, umask):
    replace_file(tmp_path / "a", b"a")
    with whole_file(tmp_path / "b") as temporary:
        temporary.write_bytes(b"b")
    assert {mode(tmp_path / "a"), mode(tmp_path / "b"), plain_mode(tmp_path)} == {0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    path = tmp_path / "private"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o600)
    replace_file(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_a_link_where_the_file_is_to_be_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (tmp_path / "out").symlink_to("victim")
    replace_file(tmp_path / "out", b"new")
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"


def test_a_link_under_the_very_name_is_not_written_through(tmp_path, monkeypatch):
    """The name is made up; were it foreseen, the file would not be made."""
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    monkeypatch.setattr("secrets.token_hex", lambda length: "0" * 2 * length)
    (tmp_path / f".out.{'0' * 16}.tmp").symlink_to("victim")
    with pytest.raises(FileExistsError), whole_file(tmp_path / "out"):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"


def test_names_are_not_foreseen(tmp_path):
    names = set()
    for _ in range(2):
        with whole_file(tmp_path / "out") as temporary:
            names.add(temporary.name)
            assert UNFINISHED.fullmatch(temporary.name)
    assert len(names) == 2


def test_the_longest_name_has_an_unfinished_one(tmp_path):
    for name in ("n" * 255, "ü" * 127):
        replace_file(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "out").write_text("old", encoding="utf-8")

    def fail() -> None:
        with whole_file(tmp_path / "out") as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"out": "old"}


def test_what_a_killed_command_has_left_is_removed_and_a_running_ones_stays(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert UNFINISHED.fullmatch(left.name)
    (tmp_path / ".others.tmp").write_text("mine", encoding="utf-8")
    with whole_file(tmp_path / "out") as running:
        remove_unfinished(tmp_path, "other")
        assert left.exists()
        remove_unfinished(tmp_path, "out")
        assert {path.name for path in tmp_path.iterdir()} == {running.name, ".others.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".others.tmp"}


def test_of_a_planted_link_only_the_link_goes(tmp_path):
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (tmp_path / f".out.{'0' * 16}.tmp").symlink_to("victim")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"victim"}


@pytest.mark.parametrize(("refused", "expected"), [
    (None, OutputError), ("out", OutputError), ("out/shards/0", OutputError),
    (".mode.0123456789abcdef.tmp", OutputError), (".", OutputError), ("/", OutputError),
    ("checkpoint", PermissionError), ("/etc/other", PermissionError),
])  # fmt: skip
def test_only_what_is_refused_of_the_output_is_mended_by_another(tmp_path, monkeypatch, refused, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(expected), write_errors(Path("out")):
        raise PermissionError(errno.EACCES, "Permission denied", refused)
