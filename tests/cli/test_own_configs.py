"""A target, a policy, a gate and a size may be the user's own YAML wherever one is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.bundle.forms import FormOptions, choose_forms
from glimmer_export.exporter.checkpoint import read_config
from glimmer_export.exporter.config.read import ConfigKind, config_file, config_names
from glimmer_export.runtime.contract import OptionError
from tests.bundle_factory import write_rows
from tests.calibrated import calibrated
from tests.exported import QUESTIONS

TAKES_A_TARGET = {
    "cost": ("--model", "base", "--target"),
    "lint": ("{bundle}", "--target"),
    "build": ("{bundle}", "--target"),
    "export": ("{checkpoint}", "-o", "{out}", "--target"),
    "quantize": ("{calibrated}", "-o", "{out}", "--target", "tensorrt", "--gpu"),
}
OTHERS: dict[str, tuple[ConfigKind, str, tuple[str, ...]]] = {
    "quantize": ("policy", "keep", ("{calibrated}", "-o", "{out}", "--policy")),
    "sensitivity": ("policy", "keep", ("{calibrated}", "--store", "{store}", "--questions", "{questions}", "--policy")),
    "parity": (
        "gate", "min_answered",
        ("{bundle}", "--reference", "{bundle}", "--store", "{store}", "--questions", "{questions}", "--gate"),
    ),
    "init": ("size", "d_model", ("-o", "{out}", "--random")),
    "cost": ("size", "d_model", ("--model",)),
}


def own(kind: ConfigKind, name: str, folder: Path) -> Path:
    """A copy of one of ours, under another name."""
    return Path(shutil.copy(config_file(kind, name), folder / "mine.yaml"))


def damaged(kind: ConfigKind, field: str, folder: Path) -> Path:
    path = own(kind, config_names(kind)[0], folder)
    path.write_text(path.read_text(encoding="utf-8").replace(f"\n{field}:", f"\nother_{field}:"), encoding="utf-8")
    return path


@pytest.fixture
def places(glimmer, tmp_path) -> dict[str, object]:
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": QUESTIONS[0]}])
    return {
        "bundle": glimmer.bundle, "checkpoint": glimmer.checkpoint, "store": glimmer.store, "out": tmp_path / "out",
        "questions": questions, "calibrated": calibrated(glimmer),
    }


@pytest.mark.parametrize("command", TAKES_A_TARGET)
def test_every_command_that_takes_a_target_reads_the_users_own(refused, places, tmp_path, command):
    path = damaged("target", "peak_tops", tmp_path)
    arguments = [argument.format(**places) for argument in TAKES_A_TARGET[command]]
    assert f"{path}: expected a target as configs/targets has them, found peak_tops: " in refused(
        OptionError, command, *arguments, path
    )
    absent = refused(OptionError, command, *arguments, "t5")
    assert f"target 't5': expected one of {', '.join(config_names('target'))}, or a YAML file" in absent


@pytest.mark.parametrize("command", OTHERS)
def test_so_are_policies_gates_and_sizes(refused, places, tmp_path, command):
    kind, field, arguments = OTHERS[command]
    path = damaged(kind, field, tmp_path)
    given = [argument.format(**places) for argument in arguments]
    assert f"other_{field}: Extra inputs are not permitted" in refused(OptionError, command, *given, path)
    message = refused(OptionError, command, *given, "none-such")
    assert f"{kind} 'none-such': expected one of {', '.join(config_names(kind))}, or a YAML file" in message


def test_a_target_of_ones_own_is_called_by_its_file(cli, glimmer, tmp_path):
    path = own("target", "t4", tmp_path)
    mine, ours = (cli("cost", "--model", "base", "--target", name, "--json").json["target"] for name in (path, "t4"))
    assert (mine.pop("name"), ours.pop("name")) == ("mine.yaml", "t4")
    assert mine == ours
    assert "graphs for mine.yaml: nothing found" in cli("lint", glimmer.bundle, "--target", path).out


def test_forms_are_chosen_for_a_target_of_ones_own(glimmer, tmp_path):
    config, path = read_config(glimmer.checkpoint), own("target", "t4", tmp_path)
    assert choose_forms(config, FormOptions(target=str(path))) == choose_forms(config, FormOptions(target="t4"))


def test_a_size_of_ones_own(cli, tmp_path):
    path = own("size", "small", tmp_path)
    assert cli("cost", "--model", path, "--json").json["model"] == "mine.yaml"
