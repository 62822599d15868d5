"""Every number of every command, far out of its range: wrong use or a named error, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.every_command import COMMANDS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ITS_OWN = ("init", "cost")
"""Commands whose numbers have their range in the model's config, which other programs write too."""
VALUES = [2**70, -(2**70), 2**31 * 2**32, 10**400, "1e3", "nan", "inf", "-inf"]
NUMBERS = [(command, name) for command in COMMANDS for name in command.of_kind(int, float)]


def test_every_number_has_a_most_where_the_options_stand_or_in_the_models_config():
    assert len(NUMBERS) > 40
    assert {command.path[0] for command, name in NUMBERS if command.infos[name].max is None} <= {*ITS_OWN}


@pytest.mark.parametrize(("command", "name"), NUMBERS, ids=str)
def test_numbers_out_of_range_are_wrong_use(cli, tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    option = command.option(name)
    takes_a_thousand = name in command.of_kind(float) and command.infos[name].max >= 1e3
    for value in VALUES:
        if value == "1e3" and takes_a_thousand:
            continue
        done = cli(*command.words("nowhere"), f"{option}={value}")
        assert done.code == 2, done.out
        assert option in done.err or command.path[0] in ITS_OWN, done.err
        assert "Traceback" not in done.err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["batch_tokens", "passages_per_shard"])
def test_the_most_is_what_its_consumer_takes(cli, tmp_path, name):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": 1, "title": "w1", "text": "w2"}\n', encoding="utf-8")
    build = next(command for command in COMMANDS if command.path == ("memory", "build"))
    words = ("memory", "build", GOLDEN / "bundle", "--corpus", corpus, "-o", tmp_path / "store")
    done = cli(*words, build.option(name), build.infos[name].max)
    assert done.code == 0, done.err
