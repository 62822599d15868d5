"""A runner for a process that appends often: the memory encoder is loaded once, and writes what a new one would."""

from __future__ import annotations

import shutil

import pytest

from glimmer_export.exporter.memory import append_passages
from glimmer_export.exporter.memory.runners import KeptRunner, job
from tests.bundle_factory import tree, write_rows
from tests.golden.whole import whole

GOLDEN = whole("schema8")


@pytest.fixture
def opened(monkeypatch) -> list[object]:
    """The backends that were opened, in their order."""
    found: list[object] = []
    whole = job.open_planned

    def open_planned(*arguments, **options):
        found.append(whole(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(job, "open_planned", open_planned)
    return found


def test_it_loads_the_encoder_once_until_it_is_closed_or_asked_otherwise(tmp_path, opened):
    store = shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store")
    other = shutil.copytree(GOLDEN / "store-fp16", tmp_path / "other")
    kept = KeptRunner()

    def append(number: int, threads: int = 1) -> int:
        rows = write_rows(tmp_path / f"{number}.jsonl", [{"id": f"k{number}", "title": "w1", "text": f"w2 w{number}"}])
        append_passages(store, GOLDEN / "bundle", rows, threads=threads, runner=kept)
        loaded = len(opened)
        append_passages(other, GOLDEN / "bundle", rows, threads=threads)
        del opened[loaded:]
        return loaded

    assert [append(1), append(2)] == [1, 1]
    assert tree(store) == tree(other)
    assert append(3, threads=2) == 2
    assert append(4, threads=2) == 2
    kept.close()
    assert append(5, threads=2) == 3
    assert tree(store) == tree(other)
    kept.close()
    kept.close()
