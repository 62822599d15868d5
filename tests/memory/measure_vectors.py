"""What a search among vectors finds, and costs, by looking at each and by codes; and what an append to them costs.

    python -m tests.memory.measure_vectors FOLDER --encoder ENC --data DATA [--vectors N ...] [--appends N ...]

`--data` holds corpus.jsonl and questions as ../shared/data/qa does. Its passages and questions are encoded once, and
kept in FOLDER. Further vectors are drawn around those of the passages: each is one of them, with a part of the
difference of two of its eight neighbours, and a little noise. Stores are generated (generated_store.py), with short
texts. What an append adds has vectors drawn likewise: no sentence encoder runs for it. CPU time is that of all threads
of the process, one where OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.exporter.memory import append_passages, delete_passages, index_store
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.exporter.memory.runners import KeptRunner
from glimmer_export.exporter.memory.vectors import copy_encoder, read_encoder
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import FileEntry, read_store_manifest
from glimmer_export.runtime.contract.vector_layout import EncoderEntry
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import make_bundle
from tests.memory.generated_corpus import templated
from tests.memory.generated_store import generated_store
from tests.memory.measure_changes import LeftOut, corpus_of, cpu, measured, median_of

ASKED, TOP_K, AT_ONCE, REPEATED = 200, 20, 50_000, 5
SETS = ("nq.dev", "squad.dev")


class Drawn(LeftOut, KeptRunner):
    """Encodes in this process, and has vectors drawn for what a sentence encoder would be asked for."""

    def __init__(self, real: Array) -> None:
        KeptRunner.__init__(self)
        self._real, self._generator = real, np.random.default_rng(7)

    def sentence_encoder(self, *_: object) -> Any:
        """This, in its place."""
        return self

    def passages(self, passages: list[tuple[str, str]]) -> Array:
        """Vectors (passages, dimension) float32."""
        return drawn(self._real, len(passages), self._generator)


def drawn(real: Array, count: int, generator: np.random.Generator) -> Array:
    """Vectors (count, dimension) float32 of length 1 around real ones, for which `neighbours` were found before."""
    near = neighbours(real)
    place = generator.integers(0, len(real), count)
    one, other = (near[place, generator.integers(0, near.shape[1], count)] for _ in range(2))
    part = generator.uniform(0.2, 0.8, (count, 1)).astype(np.float32)
    noise = generator.standard_normal((count, real.shape[1])).astype(np.float32) * (0.2 / real.shape[1] ** 0.5)
    return unit(real[place] + part * (real[one] - real[other]) + noise)


NEIGHBOURS: list[Array] = []


def neighbours(real: Array) -> Array:
    """The eight nearest of each, (vectors, 8)."""
    import faiss

    if not NEIGHBOURS:
        NEIGHBOURS.append(faiss.knn(real, real, 9, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 1:])
    return NEIGHBOURS[0]


def unit(vectors: Array) -> Array:
    """At length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def encoded(folder: Path, encoder: Path, data: Path) -> tuple[Array, Array]:
    """Vectors of the corpus's passages, and of some of both sets' questions; kept in the folder."""
    if not (folder / "questions.npy").exists():
        settings, _ = read_encoder(encoder)
        loaded = SentenceEncoder(encoder / "model.onnx", encoder / "tokenizer.json", settings, threads=1)
        rows = lines_of(data / "corpus.jsonl")
        vectors, order = [], sorted(range(len(rows)), key=lambda row: len(rows[row]["text"]))
        for start in range(0, len(rows), 16):
            some = [rows[place] for place in order[start : start + 16]]
            vectors.append(loaded.passages([(row["title"], row["text"]) for row in some]))
        real = np.concatenate(vectors)[np.argsort(order)]
        asked = [row["question"] for name in SETS for row in lines_of(data / f"{name}.k20.jsonl")[: ASKED // 2]]
        np.save(folder / "real.npy", unit(real))
        np.save(folder / "questions.npy", unit(np.stack([loaded.question(question) for question in asked])))
    return np.load(folder / "real.npy"), np.load(folder / "questions.npy")


def found_by(store: MemoryStore, questions: Array) -> tuple[list[list[int]], float]:
    """Numbers of the best 20 of each, and the CPU milliseconds of a question, those of the second time."""
    for _ in range(2):
        start = cpu()
        found = [[hit.number for hit in store.search_dense(question, TOP_K)] for question in questions]
        milliseconds = 1e3 * (cpu() - start) / len(questions)
    return found, milliseconds


def resident() -> int:
    """Bytes of this process in memory that no file holds."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def searched(store: Path, bundle: Bundle, questions: Array, search: str) -> dict[str, Any]:
    """A search's own figures, after the store was given it; `found` are the best of each question."""
    start = cpu()
    summary = index_store(store, search=search)
    training = cpu() - start
    gc.collect()
    before = resident()
    with MemoryStore.open(store, bundle, verify=False) as opened:
        start = cpu()
        opened.search_dense(questions[0], 1)
        opening, memory = cpu() - start, resident() - before
        found, milliseconds = found_by(opened, questions)
    return {
        "search": search, "lists": summary.lists, "probes": summary.probes, "recall_of_own": summary.recall,
        "made_cpu_seconds": training, "opening_cpu_seconds": opening, "question_cpu_ms": milliseconds,
        "resident_bytes": memory, "found": found,
    }


def both(store: Path, bundle: Bundle, questions: Array) -> dict[str, Any]:
    """Looking at each beside codes, of one store's vectors."""
    exact, codes = (searched(store, bundle, questions, search) for search in ("exact", "ivfpq"))
    shares = [len({*one} & {*other}) / TOP_K for one, other in zip(codes["found"], exact["found"], strict=True)]
    manifest = read_store_manifest(store)
    assert manifest.vectors is not None
    files = {
        name: sum(getattr(part, name).bytes for part in manifest.vectors.segments if getattr(part, name))
        for name in ("embeddings", "codes")
    }
    for report in (exact, codes):
        del report["found"]
        report["resident_bytes_a_vector"] = round(report["resident_bytes"] / manifest.num_passages, 1)
    return {
        "vectors": manifest.num_passages, "recall": float(np.mean(shares)), "least": float(min(shares)), "exact": exact,
        "ivfpq": codes, "file_bytes": files,
    }


def give_encoder(store: Path, encoder: Path) -> None:
    """Have the store keep an encoder, as if its vectors were by it."""
    manifest = read_store_manifest(store)
    assert manifest.vectors is not None
    settings, names = read_encoder(encoder)
    folder = store / "encoders" / f"{manifest.generation:05d}"
    copy_encoder(encoder, folder, names)
    *graph, tokenizer = (FileEntry.of(store, folder / name) for name in names)
    entry = EncoderEntry(tuple(graph), tokenizer, settings)
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, encoder=entry)))


def store_of_corpus(folder: Path, bundle: Bundle, data: Path, encoder: Path) -> Path:
    """A store of the corpus's passages, and their vectors."""
    rows = lines_of(data / "corpus.jsonl")
    store = anew(folder / "real")

    def passages() -> Iterator[Passage]:
        return (Passage(row["id"], row["title"], row["text"]) for row in rows)

    generated_store(store, bundle, passages, len(rows), engine="fts5")
    index_store(store, embeddings=folder / "real.npy")
    give_encoder(store, encoder)
    return store


def golds(store: Path, bundle: Bundle, data: Path) -> dict[str, Any]:
    """Questions of which a gold passage is among the first 20, by each retrieval."""
    found: dict[str, Any] = {}
    for retrieval in ("bm25", "dense", "hybrid"):
        with MemoryStore.open(store, bundle, retrieval=retrieval, threads=1) as opened:
            for name in SETS:
                rows = lines_of(data / f"{name}.k20.jsonl")
                hits = 0
                for row in rows:
                    numbers = [hit.number for hit in opened.search(row["question"], TOP_K)]
                    hits += bool({passage.id for passage in opened.passages(numbers)} & {*row["gold_ids"]})
                found[f"{retrieval} {name}"] = [hits, len(rows)]
    return found


def anew(path: Path) -> Path:
    """A path at which nothing is."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def store_of_drawn(folder: Path, bundle: Bundle, real: Array, count: int) -> Path:
    """A store of short texts, with vectors drawn around the real ones."""
    store, path, generator = anew(folder / f"drawn-{count}"), folder / f"drawn-{count}.npy", np.random.default_rng(1)
    matrix = np.lib.format.open_memmap(path, "w+", np.float16, (count, real.shape[1]))
    for start in range(0, count, AT_ONCE):
        matrix[start : start + AT_ONCE] = drawn(real, min(AT_ONCE, count - start), generator)
    del matrix
    generated_store(store, bundle, lambda: templated(count), count, engine="tantivy")
    index_store(store, embeddings=path)
    path.unlink()
    return store


def appends(store: Path, bundle: Bundle, real: Array) -> dict[str, Any]:
    """Appends of 10, deletions of 1, and the bytes of the vectors' own files, by each search and without vectors."""
    runs: dict[str, list[dict[str, float]]] = {"append_10": [], "delete_1": []}
    runner = Drawn(real)
    for place in range(REPEATED):
        corpus, _ = corpus_of(store.parent, 10**7 + place * 10, 10)
        runs["append_10"].append(measured(
            lambda: append_passages(store, bundle, corpus, runner=runner)  # noqa: B023
        ))
        runs["delete_1"].append(measured(lambda: delete_passages(store, [place * 7 + 1])))  # noqa: B023
    manifest = read_store_manifest(store)
    segments = manifest.vectors.segments if manifest.vectors else ()
    newest = [sum(file.bytes for file in part.files()) for part in segments[1:]]
    return {**{name: median_of(part) for name, part in runs.items()}, "segments": len(segments),
            "bytes_of_new_vectors": statistics.median(newest) if newest else 0}


def compared_appends(folder: Path, bundle: Bundle, real: Array, encoder: Path, count: int) -> dict[str, Any]:
    """A store without vectors beside the same with each search."""
    store = store_of_drawn(folder, bundle, real, count)
    give_encoder(store, encoder)
    found: dict[str, Any] = {"passages": count}
    for search in ("none", "exact", "ivfpq"):
        copy = shutil.copytree(store, anew(folder / "copy"))
        if search == "none":
            put_manifest(copy, replace(read_store_manifest(copy), vectors=None))
        else:
            index_store(copy, search=search)
        found[search] = appends(copy, bundle, real)
    shutil.rmtree(folder / "copy")
    shutil.rmtree(store)
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=int, nargs="*", default=[])
    parser.add_argument("--appends", type=int, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(make_bundle(anew(options.folder / "bundle")))
    real, questions = encoded(options.folder, options.encoder, options.data)
    report: dict[str, Any] = {}

    def note(name: str, value: object) -> None:
        report[name] = value
        sys.stderr.write(json.dumps({name: value}) + "\n")

    store = store_of_corpus(options.folder, bundle, options.data, options.encoder)
    note("golds, exact", golds(store, bundle, options.data))
    note("corpus", both(store, bundle, questions))
    note("golds, ivfpq", golds(store, bundle, options.data))
    for count in options.appends:
        note(f"appends to {count}", compared_appends(options.folder, bundle, real, options.encoder, count))
    for count in options.vectors:
        store = store_of_drawn(options.folder, bundle, real, count)
        note(f"drawn {count}", both(store, bundle, questions))
        shutil.rmtree(store)
    if options.json:
        options.json.write_text(json.dumps(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
