"""A bundle and its store, built once; a test that damages a store takes a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime.bundle import Bundle
from tests.bundle_factory import make_bundle, write_corpus

NUM_PASSAGES = 50


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="session")
def store_path(bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_corpus(folder / "corpus.jsonl", NUM_PASSAGES)
    build_store(bundle.directory, folder / "corpus.jsonl", folder / "store", passages_per_shard=16)
    return folder / "store"


@pytest.fixture
def store_copy(store_path, tmp_path) -> Path:
    return Path(shutil.copytree(store_path, tmp_path / "store"))
