"""The README and the pages of docs/: their blocks of commands and code, in the order in which a reader comes to them.

A console block has commands, each behind `$ `, and below a command what it prints, or nothing if that is not shown.
What a block of Python prints stands in a `text` block right below it. In what is shown `...` stands for any text of a
line, and for any lines where it stands alone. Blanks and rules of tables count as one each, since their lengths follow
from figures that differ from run to run.

A comment in front of a block says that it is not run: see NOTES.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ANY", "CHECKED", "DOCS", "PAGES", "ROOT", "Step", "is_shown", "navigation", "steps"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CHECKED = ("checked, not run: long", "checked, not run: another machine's")
"""Of these commands, what they name is checked: the command, its options, an install line's extras."""
NOTES = (*CHECKED, "on the device", "with optimum")
"""What may stand in front of a block. `on the device` are other programs, such as a Jetson's package manager; what is
marked `with optimum` is run by huggingface/test_docs_optimum.py, where there is optimum."""
MEASURED = "a measurement"
"""The note of all blocks of docs/measurements: they say what was run on the day that stands there."""
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>console|python)\n(?P<body>.*?)^```$"
    r"(?:\n\n```text\n(?P<shown>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
ANY, PROMPT = "...", "$ "


@dataclass(frozen=True)
class Step:
    """One command, or one block of Python."""

    page: str
    language: str
    source: str
    shown: str
    """What the page says that it prints; empty where it says nothing."""
    note: str | None

    def __str__(self) -> str:
        return f"{self.page}: {self.source}"


def navigation() -> list[Path]:
    """The pages of the site, in its order."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    return [DOCS / page for page in _pages_of(site["project"]["nav"])]


def _pages_of(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for below in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages_of(below)


PAGES = [ROOT / "README.md", *navigation()]
"""The README comes first, as it does to a reader: the pages go on with what it made."""


def steps(page: Path) -> list[Step]:
    """All that a page has to run, in its order; raises AssertionError for a block that says nothing that is known."""
    name, found = page.relative_to(ROOT).as_posix(), []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        note = MEASURED if page.parent == DOCS / "measurements" else block["note"]
        assert note in (None, MEASURED, *NOTES), f"{name}: a note that means nothing: {note}"
        if block["language"] == "python":
            found.append(Step(name, "python", block["body"], block["shown"] or "", note))
        else:
            found += _commands(name, block["body"], note)
    return found


def _commands(page: str, body: str, note: str | None) -> Iterator[Step]:
    assert body.startswith(PROMPT), f"{page}: a console block that begins with no command: {body}"
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield Step(page, "console", command, shown, note)


def is_shown(shown: str, printed: str) -> bool:
    """Whether a command printed what is shown of it."""
    lines = "".join(
        r"(?:[^\n]*\n)*?" if line == ANY else re.escape(line).replace(re.escape(ANY), r"[^\n]*") + "\n"
        for line in _lines(shown)
    )
    return re.fullmatch(lines, "".join(line + "\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    single = re.sub(r"([ ━─])\1+", r"\1", text)
    return [line.strip() for line in single.splitlines() if line.strip()]
