"""`glimmer-export env`, and the options that every command takes."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from glimmer_export.exporter.cli import optimum_register
from glimmer_export.exporter.report import terminal
from glimmer_export.runtime import BACKEND_NAMES
from tests.exported import QUESTIONS

CPU = "onnxruntime-cpu"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Quietness and what is logged are the process's, and a command's process ends with it."""
    logger = logging.getLogger("glimmer_export")
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])
    terminal.QUIET.clear()


def test_env_names_versions_and_why_a_backend_does_not_work(cli):
    found = cli("env", "--json").json
    assert found["version"] == version("glimmer-export")
    assert found["packages"]["numpy"] == np.__version__
    states = {state["name"]: state for state in found["backends"]}
    assert tuple(states) == BACKEND_NAMES[1:]
    assert states[CPU]["works"]
    assert onnxruntime.__version__ in states[CPU]["detail"]
    assert all(re.search("expected .*, found", s["detail"]) for s in states.values() if not s["works"])
    shown = cli("env").out
    assert all(name in shown for name in states)
    assert np.__version__ in shown


def test_version_is_the_distributions(cli):
    done = cli("--version")
    assert (done.code, done.out) == (0, f"glimmer-export {version('glimmer-export')}\n")


def test_commands_stand_in_groups(cli):
    shown = cli("--help").out
    places = [shown.index(name) for name in ("Checkpoints", " export ", "Memory stores", " ask ", " cost ", "Demo")]
    assert places == sorted(places)


def test_verbose_says_what_is_done_and_quiet_says_nothing(cli, glimmer):
    arguments = ("ask", glimmer.bundle, QUESTIONS[0], "--store", glimmer.store, "--backend", CPU, "--json")
    silent = cli(*arguments)
    assert silent.err == ""
    told = cli("-v", *arguments)
    assert f"INFO glimmer_export.runtime.session: bundle {glimmer.bundle} is run by {CPU}\n" in told.err
    assert told.json["answer"] == silent.json["answer"]
    assert cli("-q", "-v", *arguments).err == ""


def test_quiet_shows_errors_all_the_same(cli):
    done = cli("-q", "inspect", "/nowhere")
    assert done.code == 2
    assert "BundleError" in done.err


def test_a_program_that_sets_nothing_up_hears_nothing():
    script = "import glimmer_export, logging; logging.getLogger('glimmer_export.x').error('lost')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_registering_writes_a_file_that_outlives_us(tmp_path, monkeypatch):
    (tmp_path / "commands" / "register").mkdir(parents=True)
    monkeypatch.setattr(
        optimum_register, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "version.py"))
    )
    path = optimum_register.register_with_optimum()
    assert path == tmp_path / "commands" / "register" / "register_glimmer_export.py"
    monkeypatch.setitem(sys.modules, "glimmer_export.exporter.cli.optimum_command", None)  # as if uninstalled
    names = {}
    exec(path.read_text(encoding="utf-8"), names)
    assert names["REGISTER_COMMANDS"] == []


def test_registering_without_optimum_says_which_extra(cli, monkeypatch):
    find_spec = "glimmer_export.exporter.cli.extras.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None if "optimum" in name else name)
    done = cli("env", "--register-optimum")
    assert done.code == 2
    assert "glimmer-export[optimum]" in done.err
