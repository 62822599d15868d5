"""Frozen memory (LUMEN paper, section 4.1): read from a store in its codec, so that training sees what serving will.

No memory encoder runs then. What a store holds is that of one memory encoder, so it must be the checkpoint's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from glimmer_export.exporter.checkpoint import Checkpoint
from glimmer_export.exporter.checkpoint.digest import memory_digest
from glimmer_export.exporter.stages import Masked
from glimmer_export.exporter.stages.codecs import CodecDecoder
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    CODECS,
    BundleManifest,
    StoreError,
    file_digest,
    read_store_manifest,
)
from glimmer_export.runtime.passage_memory import padded_memory
from glimmer_export.runtime.store import MemoryStore

__all__ = ["FrozenMemory", "open_store"]


@dataclass(frozen=True)
class CheckpointBundle(Bundle):
    """A checkpoint in the place of the bundles that would be made of it, as far as a store asks for one."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> CheckpointBundle:
        """Reads the checkpoint's memory encoder for its digest."""
        shape = checkpoint.config.shape
        manifest = BundleManifest(
            schema_version=BUNDLE_SCHEMA_VERSION, model=shape, graphs={}, weights=None,
            codecs=tuple(CODECS) if shape.traits.has_memory else (), stage_a=None, cross_attention="cached",
            tokenizer=None, calibration=(), quantization=None, checkpoint_digest="",
            memory_digest=memory_digest(checkpoint),
            tokenizer_digest=None if checkpoint.tokenizer is None else file_digest(checkpoint.tokenizer),
        )
        return cls(checkpoint.directory, manifest, None)

    def __str__(self) -> str:
        return f"checkpoint {self.directory}"


def open_store(
    directory: str | os.PathLike[str], checkpoint: Checkpoint, *, own: bool, verify: bool = True
) -> tuple[MemoryStore, bool]:
    """A store, and whether a memory encoder and a tokenizer like the checkpoint's wrote it.

    If it must be the checkpoint's `own`, as its memory is to be read, raises StoreError for another's, as opening it
    with a bundle would, and for one of passages cut otherwise. Another's has passages and finds them, but its token ids
    and memory are not for this model.
    Raises StoreError for a store that is absent, damaged or newer.
    """
    bundle = CheckpointBundle.of(checkpoint)
    if own:
        _check_length(Path(directory), checkpoint.config.passage_length)
        return MemoryStore.open(directory, bundle, verify=verify), True
    theirs = read_store_manifest(Path(directory))
    wanted = bundle.manifest
    fits = (theirs.memory_digest, theirs.tokenizer_digest) == (wanted.memory_digest, wanted.tokenizer_digest)
    shape = replace(wanted.model, d_model=theirs.d_model, passage_length=theirs.passage_length)
    as_theirs = replace(
        wanted, model=shape, memory_digest=theirs.memory_digest, tokenizer_digest=theirs.tokenizer_digest,
        codecs=() if theirs.codec is None else (theirs.codec,),
    )
    return MemoryStore.open(directory, replace(bundle, manifest=as_theirs), verify=verify), fits


def _check_length(directory: Path, wanted: int) -> None:
    """Raise StoreError for passages cut otherwise: of the same weights too, these have another memory."""
    if (found := read_store_manifest(directory).passage_length) != wanted:
        raise StoreError(
            f"store {directory}", found=f"{found}",
            expected=f"passages of at most {wanted} tokens, the recipe's passage_length or else the checkpoint's",
            fix=f"pass --set passage_length={found}, or build the store with a bundle of a checkpoint that was made "
            f"with --passage-length {wanted}",
        )


class FrozenMemory:
    """Decodes passages' memory as the graphs do, which are traced from the same decoder."""

    def __init__(self, store: MemoryStore, device: torch.device | str = "cpu") -> None:
        """Codes are moved to the `device` and decoded there; raises StoreError for a store without memory."""
        codec = store.codec
        if codec is None:
            raise StoreError(
                f"store {store.directory}", expected="a store with memory, which is to stay frozen", found="none",
                fix="build one with a bundle of the checkpoint: `glimmer-export memory build`",
            )
        self.codec = codec.layout.name
        self._store, self._device = store, torch.device(device)
        self._decode = CodecDecoder(codec.layout.name, store.manifest.d_model)
        self._arrays = {name: torch.tensor(values, device=self._device) for name, values in codec.arrays.items()}

    @torch.no_grad()
    def read(self, rows: Sequence[Sequence[int]]) -> Masked:
        """Memory of each row's passages, by their numbers in the store, padded to the longest and the most.

        Memory (b, k, n_p, d_model) float32 and mask (b, k, n_p) int64; that of padding is 0, or what a code of 0 stands
        for. Each row has a passage at least. Raises PassageNumberError for a number that the store does not have.
        """
        self._store.prefetch(number for row in rows for number in row)
        memories = [[self._store.memory(number) for number in row] for row in rows]
        longest = max(passage.num_tokens for row in memories for passage in row)
        padded = padded_memory(memories, longest)
        mask = torch.from_numpy(padded.pop("memory_mask")).to(self._device, torch.int64)
        tensors = {name: torch.from_numpy(values).to(self._device) for name, values in padded.items()}
        tensors |= self._arrays
        return Masked(self._decode(*(tensors[name] for name in self._decode.names)), mask)
