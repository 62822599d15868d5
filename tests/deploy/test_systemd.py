"""docs/deploy: the unit is one that systemd takes whole, and starts a command of ours."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.cli_page import commands
from tests.docs.pages import DOCS
from tests.docs.work_folder import COMMANDS

UNIT, GPU = DOCS / "deploy" / "glimmer-export.service", DOCS / "deploy" / "gpu.conf"
INSTALLED = "/opt/glimmer-export/bin/glimmer-export"
MOST_EXPOSED = 2.5
"""Of `systemd-analyze security`, from 0 to 10, where a unit without any bounds has 9.6: it says OK below 5."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def start_line() -> list[str]:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT, encoding="utf-8")
    return shlex.split(unit["Service"]["ExecStart"])


def installed(tmp_path: Path, drop_in: str | None = None) -> Path:
    """The unit as it would be, with the command that is installed here."""
    text = UNIT.read_text(encoding="utf-8").replace(INSTALLED, str(COMMANDS / "glimmer-export"))
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")
    if drop_in is not None:
        folder = tmp_path / f"{UNIT.name}.d"
        folder.mkdir()
        (folder / GPU.name).write_text(drop_in, encoding="utf-8")
    return tmp_path / UNIT.name


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )  # fmt: skip


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, GPU.read_text(encoding="utf-8")], ids=["alone", "with gpu.conf"])
def test_systemd_takes_it(tmp_path, drop_in):
    """Which says what it ignores, and ends with 0 all the same."""
    done = analyze("verify", installed(tmp_path, drop_in))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_say_what_it_does_not_take(tmp_path):
    done = analyze("verify", installed(tmp_path, "[Service]\nPrivateDevice=no\n"))
    assert "PrivateDevice" in done.stderr


@needs_systemd
def test_it_may_do_little(tmp_path):
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED * 10:.0f}", installed(tmp_path))
    assert done.returncode == 0, done.stdout


def test_its_command_is_one_of_ours():
    words = start_line()
    assert words[:2] == [INSTALLED, "serve"]
    (serve,) = (command for name, command in commands() if name == "serve")
    options = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
