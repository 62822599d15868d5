"""What is evaluated is told apart by what lies there, and called by its directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from glimmer_export.exporter.evaluation.models import labels_of


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/a/bundle", "runs/b/bundle", "c"], ["a/bundle", "b/bundle", "c"]),
        (["x/runs/a/bundle", "y/runs/a/bundle"], ["x/runs/a/bundle", "y/runs/a/bundle"]),
        (["runs/a", "runs/../runs/a", "a"], ["runs/a", "runs/a (2)", "{here}/a"]),
        (["."], ["{here}"]),
    ],
)
def test_labels_are_as_short_as_tells_directories_apart(tmp_path, monkeypatch, paths, expected):
    monkeypatch.chdir(tmp_path)
    assert labels_of(list(map(Path, paths))) == [label.format(here=tmp_path.name) for label in expected]


def test_a_link_keeps_its_name(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "best").symlink_to(tmp_path / "blobs")
    assert labels_of([tmp_path / "best"]) == ["best"]
