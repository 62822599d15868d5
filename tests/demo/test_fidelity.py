"""What precisions and codecs cost where margins are narrow: what is run, and that the page says what was found."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.demo import fidelity
from tests.demo.fidelity import COMMON, FOUND, KEPT, NUM_QUESTIONS, PAGE, ROWS, WORLDS, labels_of
from tests.docs.cli_page import commands

ROOT = Path(__file__).parents[2]
PAGE_TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
RESULT = json.loads((ROOT / FOUND).read_text(encoding="utf-8"))
CPU = "int8 cpu"
TEXTS = [*COMMON.values(), *(text for row in ROWS.values() for text in (*row.made.values(), row.command))]


@pytest.mark.parametrize("text", dict.fromkeys(TEXTS))
def test_what_is_run_exists(text):
    words = shlex.split(text.format(options=" ".join(WORLDS.values())))
    (command,) = (each for name, each in commands() if words[: len(name.split())] == name.split())
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options


def test_the_page_has_what_was_found():
    assert fidelity.with_tables(PAGE_TEXT, RESULT) == PAGE_TEXT
    assert {world: [*RESULT[world]] for world in WORLDS} == {world: labels_of(world) for world in WORLDS}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("label", [CPU, "int8 tensorrt"])
def test_int8_held_its_bars_on_all_questions(world, label):
    row = RESULT[world][label]
    assert row["coverage"]["answered"] == NUM_QUESTIONS
    assert row["answers_equal"] >= 0.985
    assert row["top_m_overlap"] >= 0.98


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that were run; `parity` says what was found before, all else says and makes nothing."""
    texts: list[str] = []

    def command(text: str, _folder: Path) -> bytes:
        texts.append(text.split(maxsplit=1)[0])
        return json.dumps(RESULT["hard"][CPU]).encode()

    monkeypatch.setattr(fidelity, "command", command)
    return texts


def test_what_is_there_is_not_run_again(asked, tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "store").mkdir()
    fidelity.measure(tmp_path, CPU, WORLDS["hard"])
    assert asked == ["export", "calibrate", "quantize", "parity"]
    row: dict[str, Any] = json.loads((tmp_path / "rows" / f"{CPU}.json").read_text(encoding="utf-8"))
    assert row["command"] == f"glimmer-export {ROWS[CPU].command}"
    assert {name: row[name] for name in KEPT} == {name: RESULT["hard"][CPU][name] for name in KEPT}
    fidelity.measure(tmp_path, CPU, WORLDS["hard"])
    assert asked[4:] == []


def test_a_row_that_was_stopped_is_run_again(asked, tmp_path, monkeypatch):
    stopping = pytest.raises(KeyboardInterrupt)
    with monkeypatch.context() as context, stopping:
        context.setattr(fidelity.json, "loads", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        fidelity.measure(tmp_path, CPU, WORLDS["hard"])
    fidelity.measure(tmp_path, CPU, WORLDS["hard"])
    assert asked.count("parity") == 2
    assert (tmp_path / "rows" / f"{CPU}.json").is_file()


def test_rows_of_the_folder_stand_in_the_place_of_those_before(tmp_path):
    row = {**RESULT["hard"][CPU], "answers_equal": 0.5}
    (tmp_path / "hard" / "rows").mkdir(parents=True)
    (tmp_path / "hard" / "rows" / f"{CPU}.json").write_text(json.dumps(row), encoding="utf-8")
    found = fidelity.merged({**RESULT, "hard": {**RESULT["hard"], "no longer a row": row}}, tmp_path)
    assert {**RESULT["hard"], CPU: row} == found["hard"]
    assert found["demo"] == RESULT["demo"]
    page = fidelity.with_tables(PAGE_TEXT, found)
    lines = [one for one, other in zip(page.splitlines(), PAGE_TEXT.splitlines(), strict=True) if one != other]
    assert len(lines) == 1
    assert lines[0].startswith(f"| {CPU} |")
    assert "| 50.00% |" in lines[0]
