"""A report as one HTML file: nothing is fetched, no script, readable on a telephone and in the dark.

It is well-formed XML too. Jinja2 escapes whatever stands in it, which may be anybody's questions and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.files.publish import Inputs, check_file
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.report.origin import Origin
from glimmer_export.exporter.report.tables import ReportTable, Verdict
from glimmer_export.exporter.report.visible import visible_lines
from glimmer_export.runtime.contract import OutputError

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Page", "Picture", "Section", "check_page", "html_from_page", "write_page"]

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Picture:
    """SVG that `report.svg` drew, and the lines of its caption."""

    svg: Markup
    caption: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What stands under a heading, in this order; `is_text`: the tables' cells are sentences, not figures.

    One that has an `anchor` is shown only where a link to that was followed.
    """

    heading: str
    texts: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()
    pictures: Sequence[Picture] = ()
    verdict: Verdict | None = None
    is_text: bool = False
    anchor: str = ""
    commands: Sequence[str] = ()

    @classmethod
    def of(cls, table: ReportTable, *, is_text: bool = False) -> Section:
        """One table under its own title."""
        return cls(table.title, tables=[table], is_text=is_text)


@dataclass(frozen=True)
class Page:
    """A whole report; `facts` say in a few sentences what was measured."""

    title: str
    facts: str
    origin: Origin
    sections: Sequence[Section]


def check_page(path: Path, inputs: Inputs = ()) -> Path:
    """Where to write a page: not over anything but another page, nor where something is read from.

    Raises OutputError, before any work is done.
    """
    place = check_file(path, inputs)
    if path.exists() and path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"output {path}", expected="a new file, or an HTML page to replace", found=f"a file named {path.name}",
            fix="name another",
        )
    return place


def html_from_page(page: Page) -> str:
    """The file's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    return visible_lines(environment.get_template(TEMPLATE).render(page=page))


def write_page(page: Page, path: Path) -> None:
    """Write the file; raises OutputError if it cannot be written."""
    replace_file(path, html_from_page(page).encode())
