"""What docstrings cite of docs/design.md is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, ROOT

TEXT = (DOCS / "design.md").read_text(encoding="utf-8")
SECTIONS = {int(number) for number in re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)}
MODULES = [path for package in ("exporter", "calibration", "runtime") for path in (ROOT / package).rglob("*.py")]
CITED = [
    (path.relative_to(ROOT).as_posix(), int(number)) for path in MODULES
    for number in re.findall(r"docs/design\.md, section (\d+)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("module", "section"), CITED)
def test_a_section_that_is_cited_is_there(module, section):
    assert section in SECTIONS


def test_the_design_is_cited_by_its_place():
    vague = re.compile(r"(?<!docs/)\bdesign(\.md,?)? section|(?<!docs/)\bdesign\.md")
    assert [path.name for path in MODULES if vague.search(path.read_text(encoding="utf-8"))] == []
    assert len({module for module, _ in CITED}) > 4
