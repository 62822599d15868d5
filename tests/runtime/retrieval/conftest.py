"""A sentence encoder, and a store with its vectors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import index_store
from tests.encoder_factory import make_encoder


@pytest.fixture(scope="session")
def encoder_path(tmp_path_factory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoders") / "encoder")


@pytest.fixture(scope="session")
def encoded_store(store_path, encoder_path, tmp_path_factory) -> Path:
    store = Path(shutil.copytree(store_path, tmp_path_factory.mktemp("encoded") / "store"))
    index_store(store, encoder=encoder_path, batch_size=8)
    return store


@pytest.fixture
def encoded_copy(encoded_store, tmp_path) -> Path:
    return Path(shutil.copytree(encoded_store, tmp_path / "store"))
