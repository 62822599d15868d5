"""docs/cli.md is what the commands say."""

from __future__ import annotations

from tests.docs.cli_page import PAGE, commands, page


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.docs.cli_page`"


def test_commands_below_a_group_are_among_them():
    names = [name for name, _ in commands()]
    assert {"ask", "memory build"} <= {*names}
    assert "memory" not in names
