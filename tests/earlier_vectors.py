"""A store's vectors as versions before segments wrote them: a folder beside the manifest, with its own manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.runtime.contract import FileEntry, StoreManifest, read_store_manifest
from glimmer_export.runtime.generation import read_tombstones


def give_earlier_vectors(store: Path) -> StoreManifest:
    """Move the vectors of a store, which are one segment of all passages, into `dense`, and forget them otherwise."""
    manifest = read_store_manifest(store)
    (segment,), encoder = manifest.vectors.segments, manifest.vectors.encoder
    dense = store / "dense"
    dense.mkdir()
    (store / segment.embeddings.path).rename(dense / "embeddings.npy")
    live = np.setdiff1d(np.arange(manifest.num_numbers), read_tombstones(store, manifest))
    np.save(dense / "numbers.npy", live)
    entry = None
    if encoder is not None:
        folder = (store / encoder.tokenizer.path).parent
        shutil.move(folder, dense / "encoder")
        files = [FileEntry.of(dense, dense / "encoder" / (store / file.path).relative_to(folder))
                 for file in encoder.files()]
        entry = {"graph": [asdict(file) for file in files[:-1]], "tokenizer": asdict(files[-1]),
                 "settings": asdict(encoder.settings)}
    shutil.rmtree(store / "vectors")
    shutil.rmtree(store / "encoders", ignore_errors=True)
    earlier = put_manifest(store, replace(manifest, vectors=None))
    (dense / "manifest.json").write_text(json.dumps({
        "format": "glimmer-vectors", "schema_version": 2, "generation": earlier.generation,
        "texts_sha256": earlier.texts_sha256, "num_vectors": len(live), "dimension": manifest.vectors.dimension,
        "embeddings": asdict(FileEntry.of(dense, dense / "embeddings.npy")),
        "numbers": asdict(FileEntry.of(dense, dense / "numbers.npy")), "encoder": entry,
    }), encoding="utf-8")
    return earlier
