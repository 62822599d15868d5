"""A directory is replaced whole, and a command that was killed in between loses nothing and leaves nothing for good."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.files.publish import check_target, publish_directory, recover
from glimmer_export.exporter.files.whole_file import move
from glimmer_export.runtime.contract import OutputError

ROOT = Path(__file__).resolve().parents[2]

# Every operation on a directory, from when the content is complete, counts; the process dies just before the n-th.
KILLED = """
import os, signal, sys
from pathlib import Path
from glimmer_export.exporter.files.publish import publish_directory

EVENTS = {"os.mkdir", "os.rename", "os.rmdir", "shutil.rmtree"}
target, left = Path(sys.argv[1]), int(sys.argv[2])

def hook(event, arguments):
    global left
    if event in EVENTS and str(target.parent) in os.fsdecode(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

with publish_directory(target, overwrite=True) as work:
    (work / "manifest.json").write_text("new")
    sys.addaudithook(hook)
"""


def make(directory: Path, content: str = "old") -> Path:
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(content, encoding="utf-8")
    return directory


def content(directory: Path) -> str:
    return (directory / "manifest.json").read_text(encoding="utf-8")


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4, 5])
def test_killed_while_replacing_the_next_command_finds_old_or_new(tmp_path, kill_at):
    target = make(tmp_path / "outputs" / "out")
    command = [sys.executable, "-c", KILLED, str(target), str(kill_at)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    with pytest.raises(OutputError, match="--overwrite"):
        check_target(target, overwrite=False)
    assert content(target) == ("old" if kill_at <= 3 else "new")
    assert names_in(target.parent) == {"out"}


def test_what_was_moved_aside_is_put_back(tmp_path):
    make(tmp_path / ".out.glimmer-old.abcdefgh" / "old")
    recover(tmp_path / "out")
    assert content(tmp_path / "out") == "old"
    assert names_in(tmp_path) == {"out"}


def test_what_a_running_command_uses_is_left_alone(tmp_path):
    target = make(tmp_path / "out")
    with publish_directory(target, overwrite=True) as work:
        recover(target)
        assert work.is_dir()
        (work / "manifest.json").write_text("new", encoding="utf-8")
    assert content(target) == "new"


def test_content_that_a_running_command_has_moved_aside_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(BlockingIOError()))
    old = make(tmp_path / ".out.glimmer-old.abcdefgh" / "old")
    with pytest.raises(OutputError, match="no other command") as caught:
        recover(tmp_path / "out")
    assert str(old) in str(caught.value)
    assert content(old) == "old"


def test_hidden_files_of_others_are_left_alone(tmp_path):
    names = {".out.old.abcdefgh", ".out.glimmer-old", ".other.glimmer-old.abcdefgh", ".out.glimmer-new.file"}
    for name in names:
        if name.endswith("file"):
            (tmp_path / name).write_text("mine", encoding="utf-8")
        else:
            make(tmp_path / name / "old")
    recover(tmp_path / "out")
    assert names_in(tmp_path) == names


def test_what_cannot_be_put_back_is_kept(tmp_path, monkeypatch):
    """The second rename fails, and so does the one that would undo the first."""
    target = make(tmp_path / "out")

    def once(source, to):
        if source != target:
            raise PermissionError(13, "no")
        move(source, to)

    with monkeypatch.context() as patch:
        patch.setattr("glimmer_export.exporter.files.publish.move", once)
        with pytest.raises(OutputError), publish_directory(target, overwrite=True):
            pass
    assert not target.exists()
    recover(target)
    assert content(target) == "old"
    assert names_in(tmp_path) == {"out"}
