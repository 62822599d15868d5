"""A store is written by a float memory encoder, unless an INT8 one is asked for by name."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle


@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_an_int8_encoder_is_refused(corpus, tmp_path, precision):
    bundle = make_bundle(tmp_path / "bundle", precision=precision)
    with pytest.raises(OptionError, match=f"in fp32 or fp16 to build a store, found {precision}; build with the FP32"):
        build_store(bundle, corpus, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "store.partial").exists()


@pytest.mark.parametrize(
    ("precision", "asked"), [("fp32", False), ("fp16", False), ("int8", True), ("int8-fp16", True)]
)
def test_a_store_says_which_encoder_wrote_it(corpus, tmp_path, precision, asked):
    bundle = make_bundle(tmp_path / "bundle", precision=precision)
    build_store(bundle, corpus, tmp_path / "store", int8_memory=asked)
    with MemoryStore.open(tmp_path / "store", Bundle.open(bundle)) as store:
        assert store.manifest.precision == precision


@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_a_bundle_that_has_no_memory_needs_no_encoder(corpus, tmp_path, precision):
    bundle = make_bundle(tmp_path / "bundle", architecture="fid", precision=precision)
    assert build_store(bundle, corpus, tmp_path / "store").passages == 50
