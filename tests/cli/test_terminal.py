"""What stands in corpora, questions and names is printed as text: nothing of it is obeyed, by rich or the terminal."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from glimmer_export.exporter.report.terminal import bold, console
from glimmer_export.exporter.report.visible import OBEYED, visible, visible_json
from tests.bundle_factory import write_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPORTER = GOLDEN.parents[1] / "exporter"
HOSTILE = (
    "\x1b[31m\x1b]0;t\x07 \x9b5n \r\n\t\u202edne\u2066 :cat: [red]x[/] [/nothing] [link=file:///]y[/link] \\[bold]"
)
SHOWN = (
    r"\x1b[31m\x1b]0;t\x07 \x9b5n \r\n\t\u202edne\u2066 :cat: [red]x[/] [/nothing] [link=file:///]y[/link] \[bold]"
)
NAME = HOSTILE.replace("/", "-")


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose name is hostile too."""
    return shutil.copytree(GOLDEN / "bundle", tmp_path / NAME)


@pytest.fixture
def store(cli, bundle, tmp_path):
    row = {"id": HOSTILE, "title": HOSTILE, "text": "w2 w3"}
    corpus = write_rows(tmp_path / "corpus.jsonl", [row])
    done = cli("memory", "build", bundle, "--corpus", corpus, "-o", tmp_path / f"{NAME} store")
    assert done.code == 0, done.err
    assert_plain(done.out + done.err)
    return tmp_path / f"{NAME} store"


def assert_plain(printed: str) -> None:
    assert [line for line in printed.split("\n") if OBEYED.search(line)] == []


def test_every_character_that_is_obeyed_is_shown_and_no_other():
    assert visible(HOSTILE) == SHOWN
    told = "naïve 東京\u3000の\u00a0café 🐈\u200d⬛ مرحبا שלום \\x1b"
    assert visible(told) == told
    assert visible(visible(HOSTILE)) == SHOWN
    assert visible("\udcff\ud83d") == r"\udcff\ud83d"
    text = json.dumps({HOSTILE: [HOSTILE]}, indent=2, ensure_ascii=False)
    assert_plain(visible_json(text))
    assert json.loads(visible_json(text)) == {HOSTILE: [HOSTILE]}


@pytest.mark.parametrize("printed", [HOSTILE, bold(HOSTILE)], ids=["a string", "a text"])
def test_a_console_prints_it_as_text(capsys, wide, printed):
    console().print(printed)
    console(stderr=True).print(printed)
    done = capsys.readouterr()
    lines = SHOWN.split(r"\n") if isinstance(printed, str) else [SHOWN]  # a string may be several lines
    assert [*map(str.rstrip, done.out.splitlines())] == [*map(str.rstrip, done.err.splitlines())] == lines


def test_no_module_prints_by_a_console_of_its_own():
    """A string on rich's own console is markup."""
    own = re.compile(r"\bConsole\(|rich\.markup|rich import print|from_markup|typer\.echo|secho|TextColumn\([^)]*\"\)")
    found = {path.name: own.findall(path.read_text(encoding="utf-8")) for path in EXPORTER.rglob("*.py")}
    assert {name: words for name, words in found.items() if words} == {}


def test_titles_ids_and_paths_of_the_commands_that_show_them(cli, wide, bundle, store, tmp_path):
    questions = write_rows(tmp_path / "q.jsonl", [{"id": HOSTILE, "question": f"w2 {HOSTILE}", "answers": ["w2"]}])
    shown = cli("ask", bundle, "--store", store, "w2")
    assert shown.out.count(SHOWN) == 2
    for arguments in (
        ["ask", bundle, "--store", store, "w2"],
        ["inspect", bundle],
        ["answer", bundle, "--store", store, "--questions", questions],
        ["parity", bundle, "--reference", GOLDEN / "bundle", "--store", store, "--questions", questions,
         "--html", tmp_path / "page.html"],
        ["cost", "--bundle", bundle, "--plot", tmp_path / "$plot^{.svg"],
        ["memory", "verify", store],
        ["memory", "compact", store],
        ["memory", "delete", store, "--id", json.dumps(HOSTILE)],
    ):  # fmt: skip
        done = cli(*arguments)
        assert done.code == 0, done.err
        assert_plain(done.out + done.err)
    ET.parse(tmp_path / "page.html")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", NAME], ["ask", NAME, "w1"], ["memory", "verify", NAME], ["memory", "delete", NAME, "--id", NAME],
        ["export", NAME, "-o", "new"], ["cost", "--model", "base", "--target", NAME], [f"--{NAME}"], [NAME],
        ["inspect", "x", NAME], ["lint", "x", "--target", NAME],
    ],
)  # fmt: skip
def test_errors_name_it_on_one_line(cli, wide, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = cli(*words)
    assert done.code == 2
    assert_plain(done.out + done.err)
    assert "Error" in done.err
