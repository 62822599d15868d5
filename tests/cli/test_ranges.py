"""Every number of every command, far out of its range: wrong use or a named error, before anything is done."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from typer.models import OptionInfo, ParameterInfo

from exporter.cli.app import app

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ENOUGH = {"init": ["--random", "small"], "bench": ["--random", "small"], "cost": ["--model", "small"]}
"""What commands need beside arguments and required options, to come to look at their numbers."""
ITS_OWN = ("init", "cost")
"""Commands whose numbers have their range in the model's config, which other programs write too."""


@dataclass(frozen=True)
class Number:
    """An option that takes a number, and the words that the command needs beside it."""

    path: tuple[str, ...]
    option: str
    most: float | None
    needed: tuple[str, ...]


def _numbers(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[Number]:
    for inner in group.registered_groups:
        yield from _numbers(inner.typer_instance, (*path, inner.name))
    for command in group.registered_commands:
        name = (*path, command.name or command.callback.__name__)
        hints = get_type_hints(command.callback, include_extras=True)
        parameters = inspect.signature(command.callback).parameters
        options = {key: get_args(hint) for key, hint in hints.items() if len(get_args(hint)) == 2}
        needed = list(ENOUGH.get(name[0], []))
        for key, (kind, info) in options.items():
            if parameters[key].default is inspect.Parameter.empty:
                value = next(iter(kind)).value if isinstance(kind, type) and issubclass(kind, Enum) else "nowhere"
                needed += [*_names(key, info)[:1], value]
        for key, (kind, info) in options.items():
            if kind in (int, float) or {int, float} & {*get_args(kind)}:
                yield Number(name, _names(key, info)[0], info.max, tuple(needed))


def _names(key: str, info: ParameterInfo) -> tuple[str, ...]:
    """What an option is called; nothing for an argument."""
    return (info.param_decls or (f"--{key.replace('_', '-')}",)) if isinstance(info, OptionInfo) else ()


FOUND = list(_numbers(app))
VALUES = [2**70, -(2**70), 2**31 * 2**32, 10**400, "1e3", "nan", "inf", "-inf"]


def test_every_number_has_a_most_where_the_options_stand_or_in_the_models_config():
    assert len(FOUND) > 40
    assert {found.path[0] for found in FOUND if found.most is None} <= {*ITS_OWN}


@pytest.mark.parametrize("number", FOUND, ids=lambda number: f"{' '.join(number.path)} {number.option}")
def test_numbers_out_of_range_are_wrong_use(cli, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    for value in VALUES:
        done = cli(*number.path, *number.needed, f"{number.option}={value}")
        assert done.code == 2, done.out
        assert number.option in done.err or number.path[0] in ITS_OWN, done.err
        assert "Traceback" not in done.err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--threads", "--batch-tokens", "--passages-per-shard"])
def test_the_most_is_what_its_consumer_takes(cli, tmp_path, option):
    """Of threads not the most, which a small machine is slow with."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": 1, "title": "w1", "text": "w2"}\n', encoding="utf-8")
    most = {found.option: found.most for found in FOUND if found.path == ("memory", "build")}
    value = 2 if option == "--threads" else most[option]
    done = cli("memory", "build", GOLDEN / "bundle", "--corpus", corpus, "-o", tmp_path / "store", option, value)
    assert done.code == 0, done.err
