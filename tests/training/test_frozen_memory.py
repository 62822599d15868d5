"""Frozen memory is what the codec decodes, of the checkpoint's own store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.memory import convert_store
from glimmer_export.exporter.stages import Masked
from glimmer_export.exporter.stages.load import model_from_checkpoint
from glimmer_export.exporter.training.frozen_memory import FrozenMemory, open_store
from glimmer_export.runtime.contract import CODECS, PassageNumberError, StoreError
from tests.exported import make_checkpoint

ROWS = [[3, 17, 3], [25], [39, 0]]


@pytest.fixture(scope="module")
def stores(glimmer, tmp_path_factory):
    """The store in every codec."""
    folder = tmp_path_factory.mktemp("stores")
    for codec in CODECS:
        if codec != "fp16":
            convert_store(glimmer.store, folder / codec, codec)
    return {codec: glimmer.store if codec == "fp16" else folder / codec for codec in CODECS}


@pytest.mark.parametrize("codec", CODECS)
def test_memory_is_what_the_codec_decodes(stores, checkpoint, codec):
    store, _ = open_store(stores[codec], checkpoint, own=True)
    with store:
        memory, mask = FrozenMemory(store).read(ROWS)
        lengths = [[len(store.input_ids(number)) for number in row] for row in ROWS]
        assert memory.shape == (3, 3, max(map(max, lengths)), checkpoint.config.d_model)
        assert (memory.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert mask.sum(-1).tolist() == [row + [0] * (3 - len(row)) for row in lengths]
        for row, numbers in enumerate(ROWS):
            for place, number in enumerate(numbers):
                wanted = store.codec.decode(store.memory(number).tensors)
                assert np.array_equal(memory[row, place, : len(wanted)].numpy(), wanted)
                assert mask[row, place, : len(wanted)].all()


def test_memory_of_the_store_stands_for_the_memory_encoder(glimmer, checkpoint):
    """Within what FP16 keeps: the memory encoder's own output."""
    model = model_from_checkpoint(checkpoint)
    store, _ = open_store(glimmer.store, checkpoint, own=True)
    with store:
        ids = torch.tensor(store.input_ids(17)[None].astype(np.int64))
        memory = FrozenMemory(store).read([[17]])
    wanted = model.encode_memory(ids, torch.ones_like(ids))
    torch.testing.assert_close(memory.values[0], wanted, rtol=1e-3, atol=1e-3)
    assert isinstance(memory, Masked)


def test_another_checkpoints_store_has_passages_and_no_memory_for_this_one(glimmer, tmp_path):
    other = read_checkpoint(make_checkpoint(tmp_path / "other", "glimmer, every option"))
    with pytest.raises(StoreError, match=r"a store of checkpoint .*other, the checkpoint's memory encoder \w+"):
        open_store(glimmer.store, other, own=True)
    store, fits = open_store(glimmer.store, other, own=False)
    with store:
        assert not fits
        assert len(store.search("w1", 3)) == 3


def test_a_store_of_other_lengths_is_said_to_be_one(glimmer, checkpoint):
    """As a recipe may ask for: its memory encoder is the same, and the memory is not."""
    length = checkpoint.config.passage_length
    longer = replace(checkpoint, config=checkpoint.config.model_copy(update={"passage_length": length + 2}))
    expected = rf"passages of at most {length + 2} tokens.*found {length}; pass --set passage_length={length}"
    with pytest.raises(StoreError, match=expected):
        open_store(glimmer.store, longer, own=True)


def test_the_checkpoints_own_store_is_known_as_such(glimmer, checkpoint):
    store, fits = open_store(glimmer.store, checkpoint, own=False)
    store.close()
    assert fits


def test_a_store_without_memory_is_refused(exported):
    fid = exported("fid")
    store, _ = open_store(fid.store, read_checkpoint(fid.checkpoint), own=True)
    with store, pytest.raises(StoreError, match="a store with memory"):
        FrozenMemory(store)


def test_a_number_that_the_store_does_not_have(glimmer, checkpoint):
    store, _ = open_store(glimmer.store, checkpoint, own=True)
    with store, pytest.raises(PassageNumberError):
        FrozenMemory(store).read([[1, 4000]])
