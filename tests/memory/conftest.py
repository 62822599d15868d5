"""A bundle and a corpus to build stores from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bundle_factory import make_bundle, write_corpus


@pytest.fixture(autouse=True)
def _without_sync(monkeypatch):
    """No test cuts the power, and waiting for the disk took most of their time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, 50)
    return path
