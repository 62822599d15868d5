"""`optimum-cli export glimmer` does what `glimmer-export export` does."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import pytest
from typer.models import OptionInfo

from glimmer_export.exporter.bundle import FormOptions
from glimmer_export.exporter.cli.bundles import export
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS, STAGE_A_FORMS
from glimmer_export.runtime.contract.manifest import EXPORT_PRECISIONS
from tests.cli.conftest import Done, run_main, snapshot
from tests.optimum_line import ABSENT

optimum_command = pytest.importorskip("glimmer_export.exporter.cli.optimum_command", reason=ABSENT)
GlimmerExportCommand = optimum_command.GlimmerExportCommand

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def optimum_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `optimum-cli` with these arguments in this process."""
    from optimum.commands.optimum_cli import main

    return lambda *arguments: run_main(main, "optimum-cli", arguments, monkeypatch, capsys)


def test_the_bundle_is_the_same(optimum_cli, exported, tmp_path):
    fid = exported("fid")
    done = optimum_cli(
        "export", "glimmer", fid.checkpoint, "-o", tmp_path / "bundle", "--cross-attention", "cached", "--json"
    )
    assert set(done.json["graphs"]) == {graph.name for graph in fid.graphs}
    assert snapshot(tmp_path / "bundle") == snapshot(fid.bundle)


@pytest.mark.parametrize(("options", "forms", "others"), [
    ([], FormOptions(), {"precision": "fp32", "check": True, "overwrite": False}),
    (
        ["--stage-a", "full", "--cross-attention", "absorbed", "--answer-tokens", "3", "--target", "t4", "--codecs",
         "int8, int4", "--precision", "fp16", "--no-check", "--overwrite"],
        FormOptions("full", "absorbed", 3, "t4", ("int8", "int4")),
        {"precision": "fp16", "check": False, "overwrite": True},
    ),
])  # fmt: skip
def test_options_reach_the_exporter(optimum_cli, monkeypatch, options, forms, others):
    calls = []

    def export_bundle(*arguments, **named):
        del named["on_graph"]
        calls.append((*arguments, named))
        return []

    monkeypatch.setattr("glimmer_export.exporter.bundle.export_bundle", export_bundle)
    monkeypatch.setattr("glimmer_export.runtime.contract.read_manifest", lambda _: SimpleNamespace(graph_files=list))
    assert optimum_cli("export", "glimmer", "ckpt", "-o", "bundle", *options).code == 0
    assert calls == [(Path("ckpt"), Path("bundle"), forms, others)]


@pytest.mark.parametrize(("arguments", "message"), [
    (["{checkpoint}", "-o", "{existing}"], "OutputError: "),
    (["{existing}", "-o", "{new}"], "CheckpointError: "),
    (["{checkpoint}", "-o", "{checkpoint}", "--overwrite"], "OutputError: "),
    (["{checkpoint}", "-o", "{new}", "--stage-a", "lazy"], "OptionError: --stage-a: expected full"),
    (["{checkpoint}", "-o", "{new}", "--target", "moon"], "moon"),
    (["{checkpoint}", "-o", "{new}", "--stage-a", "eager"], "invalid choice: 'eager'"),
    (["{checkpoint}", "-o", "{new}", "--answer-tokens", "0"], "0 is less than 1"),
    (["{checkpoint}"], "required: -o/--output"),
])  # fmt: skip
def test_bad_input_is_named(optimum_cli, exported, tmp_path, arguments, message):
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing" / "kept").write_text("")
    places = {"checkpoint": exported("fid").checkpoint, "existing": tmp_path / "existing", "new": tmp_path / "new"}
    done = optimum_cli("export", "glimmer", *(argument.format(**places) for argument in arguments))
    assert done.code == 2
    assert message in done.err.splitlines()[-1]
    assert done.out == ""
    assert set(snapshot(tmp_path)) == {"existing", "existing/kept"}


def test_options_and_defaults_are_those_of_our_own_command():
    hints = get_type_hints(export, include_extras=True)
    expected = {}
    for name, parameter in inspect.signature(export).parameters.items():
        required, default = parameter.default is inspect.Parameter.empty, parameter.default
        (info,) = hints[name].__metadata__
        # Where typer finds an option in an annotation, its first name stands in the place of a default.
        names = [info.default, *info.param_decls] if isinstance(info, OptionInfo) else [name]
        names = [part for each in names for part in each.split("/")]  # a switch and its opposite
        expected[frozenset(names)] = (required, None if required else getattr(default, "value", default))
    parser = ArgumentParser(add_help=False)
    GlimmerExportCommand.parse_args(parser)
    found = {
        frozenset(action.option_strings or [action.dest]): (action.required, action.default)
        for action in parser._actions
    }
    assert found == expected
    choices = {action.dest: set(action.choices) for action in parser._actions if action.choices}
    assert choices == {
        "stage_a": set(STAGE_A_FORMS), "cross_attention": {*CROSS_ATTENTION_FORMS, "auto", "both"},
        "precision": set(EXPORT_PRECISIONS),
    }  # fmt: skip


def test_optimum_finds_the_command_in_a_process_of_its_own(tmp_path):
    script = "from optimum.commands.optimum_cli import main; main()"
    command = [sys.executable, "-c", script, "export", "glimmer", "none", "-o", "bundle"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("CheckpointError: ")
    assert list(tmp_path.iterdir()) == []
