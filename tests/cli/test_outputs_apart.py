"""Whatever a command writes stands apart from all that it reads: each output against each input, by each way to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
import typer.main

from glimmer_export.exporter.cli.app import app
from glimmer_export.runtime.contract import OutputError
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, copy_bundle
from tests.parity.asked import write_gate

FILE, FOLDER, CHANGED, RECORD = "a file", "a folder that is made", "a folder that is changed", "parity.json in a folder"


@dataclass(frozen=True)
class Command:
    """Options and arguments that name paths, by what is done with them; `needed` completes the command line."""

    outputs: dict[str, str]
    inputs: tuple[str, ...]
    needed: str = ""


COMMANDS = {
    "init": Command({"output": FOLDER}, ("from_t5", "from_fid", "tokenizer")),
    "convert": Command({"output": FOLDER}, ("source", "config", "names", "tokenizer"), "--from t5x"),
    "export": Command({"output": FOLDER}, ("checkpoint",)),
    "inspect": Command({}, ("bundle",)),
    "env": Command({}, ()),
    "export-encoder": Command({"output": FOLDER}, ("source",)),
    "memory build": Command({"output": FOLDER}, ("bundle", "corpus")),
    "memory convert": Command({"output": FOLDER}, ("store",), "--codec int8"),
    "memory index": Command({"store": CHANGED}, ("embeddings", "ids", "encoder")),
    "memory append": Command({"store": CHANGED}, ("bundle", "corpus")),
    "memory delete": Command({"store": CHANGED}, ("ids",)),
    "memory compact": Command({"store": CHANGED}, ()),
    "memory stats": Command({}, ("store",)),
    "memory verify": Command({}, ("store",)),
    "memory repair": Command({"store": CHANGED}, ("bundle", "corpus")),
    "ask": Command({"compile_cache": FOLDER}, ("bundle", "store"), "w1"),
    "answer": Command({"predictions": FILE, "compile_cache": FOLDER}, ("bundle", "store", "questions")),
    "serve": Command({"compile_cache": FOLDER}, ("bundle", "store", "config", "token_file", "write_token_file")),
    "evaluate": Command({"html": FILE, "plot": FILE, "work": CHANGED}, ("models", "corpus", "store", "questions")),
    "parity": Command(
        {"html": FILE, "bundle": RECORD, "compile_cache": FOLDER},
        ("bundle", "checkpoint", "reference", "store", "reference_store", "questions", "gate"),
    ),
    "calibrate": Command({"bundle": CHANGED}, ("questions", "store")),
    "quantize": Command(
        {"output": FOLDER}, ("bundle", "policy", "questions", "store"), "--weight-only int4 --algorithm gptq"
    ),
    "lint": Command({}, ("bundle",)),
    "tune": Command({"output": FOLDER, "html": FILE}, ("checkpoint", "corpus", "questions", "gate", "policy")),
    "build": Command({"bundle": CHANGED}, ()),
    "sensitivity": Command({"plot": FILE}, ("bundle", "questions", "store", "policy")),
    "cost": Command({"plot": FILE}, ("bundle",)),
    "bench": Command({"work": CHANGED, "html": FILE}, ("checkpoint", "work", "draft_trace"), "--peers none"),
    "train": Command({"output": FOLDER}, ("checkpoint", "rows", "dev", "corpus", "store", "recipe")),
    "triton": Command({"output": FOLDER}, ("bundle", "store")),
    "demo-data": Command({"output": FOLDER}, ()),
}  # fmt: skip
TEXTS_THAT_NAME_FILES = {"dev", "gate", "policy", "questions", "recipe", "rows"}
ALONE = {
    ("parity", "checkpoint"): "reference", ("parity", "reference"): "checkpoint", ("init", "from_t5"): "from_fid",
    ("init", "from_fid"): "from_t5", ("init", "tokenizer"): "from_fid",
    ("evaluate", "corpus"): "store", ("evaluate", "store"): "corpus",
}
"""Options that do without another one."""
ENDINGS = {"plot": ".png", "html": ".html", "predictions": ".jsonl"}
LEFT_OUT = {
    "bench": dict.fromkeys(("checkpoint", "work"), ("draft_trace",)),
    "memory index": {"encoder": ("embeddings", "ids"), "embeddings": ("encoder", "ids"), "ids": ("encoder",)},
    "train": dict.fromkeys(("checkpoint", "dev", "recipe", "rows", "store"), ("corpus",)) | {"corpus": ("store",)},
}
"""What does not go with the input that is tried."""
WITHIN = {"memory index": "dense"}
"""The one part of a folder that is changed."""


def functions(group: typer.Typer = app, words: str = "") -> dict[str, Callable[..., object]]:
    """What every command calls, by the words that call it."""
    found = {
        f"{words}{item.name or item.callback.__name__}": item.callback for item in group.registered_commands
    }  # fmt: skip
    for below in group.registered_groups:
        found |= functions(below.typer_instance, f"{words}{below.name} ")
    return found


def names_files(name: str, annotation: object) -> bool:
    """Whether an option or argument is a path, or several."""
    text = name in TEXTS_THAT_NAME_FILES and annotation is not int
    return text or Path in (annotation, *get_args(annotation)) or any(
        Path in get_args(part) for part in get_args(annotation)
    )  # fmt: skip


def test_every_path_of_every_command_is_in_the_table():
    found = {
        words: {name for name, annotation in get_type_hints(function).items() if names_files(name, annotation)}
        for words, function in functions().items()
    }  # fmt: skip
    assert found == {name: {*command.outputs, *command.inputs} for name, command in COMMANDS.items()}


@pytest.fixture
def paths(glimmer, tmp_path) -> dict[str, Path]:
    """Something sound for every input."""
    folder = tmp_path / "inputs"
    (folder / "t5").mkdir(parents=True)
    (folder / "t5" / "config.json").write_text("{}", encoding="utf-8")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "encoder.json").write_text("{}", encoding="utf-8")
    for name in ("config.json", "names.yaml", "tokenizer.json", "policy.yaml"):
        (folder / name).write_text("{}", encoding="utf-8")
    np.save(folder / "embeddings.npy", np.zeros((len(CORPUS), 4), np.float32))
    rows = [{"question": "w0 w7", "answers": ["w1"]}, {"question": "w1", "answers": ["w2"]}]
    return {
        "source": folder / "t5", "from_t5": folder / "t5", "from_fid": folder / "t5", "config": folder / "config.json",
        "token_file": folder / "names.yaml", "write_token_file": folder / "names.yaml",
        "draft_trace": folder / "config.json",
        "names": folder / "names.yaml", "tokenizer": folder / "tokenizer.json", "encoder": folder / "encoder",
        "embeddings": folder / "embeddings.npy", "policy": folder / "policy.yaml", "gate": Path(write_gate(folder)),
        "output": tmp_path / "new",
        "ids": write_rows(folder / "ids.jsonl", [{"id": row["id"]} for row in CORPUS[:2]]),
        "questions": write_rows(folder / "questions.jsonl", rows),
        "rows": write_rows(folder / "rows.jsonl", rows), "dev": write_rows(folder / "dev.jsonl", rows),
        "recipe": write_recipe(folder / "recipe.yaml"),
        "corpus": Path(shutil.copy(glimmer.corpus, folder / "corpus.jsonl")),
        "models": copy_bundle(glimmer, folder / "models"),
        "bundle": copy_bundle(glimmer, folder / "bundle"), "reference": copy_bundle(glimmer, folder / "reference"),
        "checkpoint": Path(shutil.copytree(glimmer.checkpoint, folder / "checkpoint")),
        "store": Path(shutil.copytree(glimmer.store, folder / "store")),
        "reference_store": Path(shutil.copytree(glimmer.store, folder / "reference-store")),
    }  # fmt: skip


def write_recipe(path: Path) -> Path:
    path.write_text("steps: 1\n", encoding="utf-8")
    return path


def ways(kind: str, output: str, source: Path, change: Path) -> Iterator[tuple[str, Path, Path]]:
    """Each way to have an output and an input meet, made: its name, the output's path and the input's."""
    place = source.parent.with_name("elsewhere")
    place.mkdir()
    file = source if source.is_file() else next(path for path in sorted(source.rglob("*")) if path.is_file())
    if kind == FILE:
        for how, link in (("a link", Path.symlink_to), ("another name", Path.hardlink_to)):
            link(place / f"{how}{ENDINGS[output]}", file)
            yield how, place / f"{how}{ENDINGS[output]}", source
        if source.is_dir():
            yield "inside", source / f"new{ENDINGS[output]}", source
        target = place / f"target{ENDINGS[output]}"
        target.write_bytes(file.read_bytes())
        linking = place / source.name
        if source.is_dir():
            shutil.copytree(source, linking)
            (linking / "link").symlink_to(target)
        else:
            linking.symlink_to(target)
        yield "what a link in the input leads to", target, linking
    elif kind == FOLDER:
        yield "itself", source, source
        (place / "link").symlink_to(source)
        yield "a link", place / "link", source
        yield "what holds it", source.parent, source
        if source.is_dir():
            yield "inside", source / "new", source
    elif kind == RECORD:
        os.link(file, change / "parity.json")
        yield "another name", change, source
    else:
        change.mkdir(exist_ok=True)
        held = change / "held"
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, held)
        yield "inside", change, held
        (place / "link").symlink_to(held)
        yield "a link inside", change, place / "link"


def arguments(words: str, values: dict[str, Path]) -> list[str]:
    """The command line that gives these options and arguments."""
    command: Any = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    given: list[str] = []
    for parameter in command.params:
        if parameter.name in values:
            option = [max(parameter.opts, key=len)] if parameter.param_type_name == "option" else []
            given += [*option, str(values[parameter.name])]
        elif parameter.name == "overwrite":
            given.append("--overwrite")
    return [*words.split(), *given, *COMMANDS[words].needed.split()]


PAIRS = [
    (name, output, source) for name, command in COMMANDS.items() for output in command.outputs
    for source in command.inputs if source != output
]  # fmt: skip


@pytest.mark.parametrize(("name", "output", "source"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
def test_an_output_that_would_touch_an_input_is_refused(refused, paths, tmp_path, name, output, source):
    command, kind = COMMANDS[name], COMMANDS[name].outputs[output]
    paths["work"] = tmp_path / "inputs" / "work"
    paths["work"].mkdir()
    (paths["work"] / "kept.txt").write_text("kept", encoding="utf-8")
    change = paths.get(output, tmp_path) / WITHIN.get(name, "")
    for how, place, read in ways(kind, output, paths[source], change):
        left_out = LEFT_OUT.get(name, {}).get(source, ())
        without = {ALONE[name, source]} if (name, source) in ALONE else {"checkpoint"} if name == "parity" else set()
        without |= {*left_out, *({"work"} - {source, output})}
        given = [option for option in (*command.inputs, *command.outputs) if option in paths and option not in without]
        values = {option: paths[option] for option in given}
        values |= {output: place if kind != CHANGED else paths[output], source: read}
        said = refused(OutputError, *arguments(name, values))
        assert "apart from what is read" in said, (how, said)


@pytest.mark.parametrize(
    "command", [("memory", "build", "{bundle}", "-o", "{out}"), ("memory", "append", "{out}", "--bundle", "{bundle}")],
    ids=["build", "append"],
)
def test_a_corpus_in_the_directory_of_the_work_is_refused(refused, paths, command):
    """Which `--restart` clears."""
    out = paths["store"]
    work = out.with_name(f"{out.name}.partial")
    work.mkdir()
    corpus = shutil.copy(paths["corpus"], work / "corpus.jsonl")
    words = [word.format(bundle=paths["bundle"], out=out) for word in command]
    assert "apart from what is read" in refused(OutputError, *words, "--corpus", corpus, "--restart")


def test_two_outputs_of_a_bench_are_apart(refused, paths, tmp_path):
    said = refused(
        OutputError, "bench", "--checkpoint", paths["checkpoint"], "--peers", "none", "--work", tmp_path / "work",
        "--html", tmp_path / "work" / "page.html",
    )
    assert "page.html" in said
