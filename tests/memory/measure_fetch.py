"""What it costs to fetch a question's passages from a store of many shards, beside a store of one.

    python -m tests.memory.measure_fetch FOLDER [--width 8] [--tokens 8 16] [--passages 22000] [--codec fp16]

Both stores hold the same passages, one in shards of three. A question's passages, 25 drawn by chance, are looked up
(`views`), and then written into the array that a graph reads (`fetched`), as a session does. All passages were read
before, so that they are in memory and their checksums known; the stores are asked in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from glimmer_export.exporter.memory import convert_store
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.passage_memory import BufferPool, padded_memory
from glimmer_export.runtime.store import MemoryStore
from tests import bundle_factory
from tests.memory import generated_store
from tests.memory.generated_corpus import templated

PER_SHARD, AT_ONCE, QUESTIONS = 3, 25, 2000


def written(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The two stores, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stores = {}
    with (
        patch.object(bundle_factory, "D_MODEL", options.width),
        patch.object(generated_store, "TOKENS", tuple(options.tokens)),
    ):
        codecs = tuple({"fp16", options.codec})
        bundle_factory.make_bundle(folder / "bundle", passage_length=max(options.tokens), codecs=codecs)
        bundle = Bundle.open(folder / "bundle")
        for name, size in (("one", options.passages), ("many", PER_SHARD)):
            generated_store.generated_store(
                folder / name, bundle, lambda: templated(options.passages), options.passages, engine="fts5",
                passages_per_shard=size,
            )
            stores[name] = folder / name
            if options.codec != "fp16":
                stores[name] = folder / f"{name}-{options.codec}"
                convert_store(folder / name, stores[name], options.codec)
                shutil.rmtree(folder / name)
    return stores


def fetched(store: MemoryStore, numbers: list[int], num_tokens: int, pool: BufferPool) -> tuple[float, float]:
    """CPU seconds of looking passages up, and of writing their memory into one array."""
    start = time.thread_time()
    memories = [store.memory(number) for number in numbers]
    between = time.thread_time()
    padded_memory([memories], num_tokens, pool.take)
    return between - start, time.thread_time() - between


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs=2, default=[8, 16])
    parser.add_argument("--passages", type=int, default=22_000)
    parser.add_argument("--codec", default="fp16")
    options = parser.parse_args()
    stores, pool = written(options.folder, options), BufferPool()
    bundle, generator = Bundle.open(options.folder / "bundle"), np.random.default_rng(0)
    times = {name: ([], []) for name in stores}  # of views, and of these with what is written
    with MemoryStore.open(stores["one"], bundle) as one, MemoryStore.open(stores["many"], bundle) as many:
        opened = {"one": one, "many": many}
        shards = {name: store.manifest.num_shards for name, store in opened.items()}
        for store in opened.values():
            for number in range(options.passages):
                store.memory(number).codes.max()
        for _ in range(QUESTIONS):
            numbers = generator.choice(options.passages, AT_ONCE, replace=False).tolist()
            for name in generator.permutation(list(opened)).tolist():
                views, rest = fetched(opened[name], numbers, options.tokens[1], pool)
                times[name][0].append(1e6 * views / AT_ONCE)
                times[name][1].append(1e6 * (views + rest) / AT_ONCE)
    report: dict[str, object] = {"width": options.width, "codec": options.codec, "shards": shards}
    for place, what in enumerate(("views", "fetched")):
        us = {name: round(statistics.median(found[place]), 2) for name, found in times.items()}
        report[what] = {**us, "ratio": round(us["many"] / us["one"], 3)}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
