"""The commands and code of the README and of every page of docs/ do what the pages say, in the order of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glimmer_export.runtime.backends import registry
from tests.docs.pages import PAGES, ROOT, steps
from tests.docs.work_folder import WorkFolder

RUN = [page for page in PAGES if any(step.note is None for step in steps(page))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkFolder]:
    """What a page registers is there for the pages after it, and not for the tests after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_kinds", [*registry.backend_kinds()])
        yield WorkFolder(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page, folder):
    faults = folder.run_through(page)
    assert not faults, "\n\n".join(faults)
