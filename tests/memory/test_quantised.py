"""Vectors searched by codes: nearly what looking at each finds, through any change of the store."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    quantise,
    store_stats,
    vector_segments,
    verify_store,
)
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import EmbeddingsError, FileEntry, OptionError, StoreError, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import tree, write_rows

NUM_PASSAGES, DIMENSION = 600, 50
"""A dimension that 48 parts do not divide."""
LEAST_OF_OTHERS = 0.95
"""Recall where some vectors came later: 256 codewords a part were fitted to some hundred, and say less of others."""


def rows(count, start=0):
    return [{"id": number, "title": "w1", "text": f"w2 w{number % 9}"} for number in range(start, start + count)]


def clustered(count, seed=0):
    """Vectors around 30 others, as those of passages lie around their subjects."""
    generator = np.random.default_rng(seed)
    around = np.random.default_rng(9).standard_normal((30, DIMENSION))[generator.integers(0, 30, count)]
    vectors = around + 0.4 * generator.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    build_store(bundle, write_rows(folder / "corpus.jsonl", rows(NUM_PASSAGES)), folder / "plain")
    np.save(folder / "vectors.npy", clustered(NUM_PASSAGES))
    store = shutil.copytree(folder / "plain", folder / "store")
    index_store(store, embeddings=folder / "vectors.npy", search="ivfpq")
    return store


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


def found(store, bundle, queries, top_k=20):
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        return [[hit.number for hit in opened.search_dense(query, top_k)] for query in queries]


def exact(vectors, numbers, queries, top_k=20):
    scores = queries @ vectors.astype(np.float16).astype(np.float32).T
    return [[numbers[row] for row in np.argsort(-own, kind="stable")[:top_k]] for own in scores]


def recall(one, other):
    return np.mean([len({*a} & {*b}) / len(b) for a, b in zip(one, other, strict=True)])


def test_codes_find_what_looking_at_each_finds(bundle, store):
    vectors, queries = clustered(NUM_PASSAGES), clustered(40, seed=1)
    entry = read_store_manifest(store).vectors
    assert (entry.quantiser.num_parts, entry.quantiser.width, entry.segments[0].dtype) == (48, 96, "float16")
    assert recall(found(store, bundle, queries), exact(vectors, range(NUM_PASSAGES), queries)) >= 0.99
    everything = found(store, bundle, queries[:2], NUM_PASSAGES)
    assert [sorted(own) for own in everything] == [list(range(NUM_PASSAGES))] * 2
    assert everything == exact(vectors, range(NUM_PASSAGES), queries[:2], NUM_PASSAGES)


def test_scores_are_exact(bundle, store):
    query = clustered(1, seed=2)[0]
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        hits = opened.search_dense(query, 10)
    expected = clustered(NUM_PASSAGES).astype(np.float16).astype(np.float32)[[hit.number for hit in hits]] @ query
    assert np.allclose([hit.score for hit in hits], expected, rtol=1e-5)


def test_codes_go_through_every_change(bundle, store, tmp_path):
    queries, vectors = clustered(30, seed=1), np.concatenate([clustered(NUM_PASSAGES), clustered(40, seed=5)])
    before = found(store, bundle, queries)
    quantiser = read_store_manifest(store).vectors.quantiser
    deleted = list(range(0, NUM_PASSAGES, 3))
    with MemoryStore.open(store, Bundle.open(bundle)) as held:
        delete_passages(store, deleted)
        append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", rows(40, NUM_PASSAGES)))
        np.save(tmp_path / "new.npy", vectors[NUM_PASSAGES:])
        assert index_store(store, embeddings=tmp_path / "new.npy").added == 40
        live = sorted({*range(NUM_PASSAGES + 40)} - {*deleted})
        expected = exact(vectors[live], live, queries)
        changed = found(store, bundle, queries)
        assert recall(changed, expected) >= LEAST_OF_OTHERS
        assert [[hit.number for hit in held.search_dense(query, 20)] for query in queries] == before
    assert len(read_store_manifest(store).vectors.segments) == 2
    compact_store(store)
    (whole,) = read_store_manifest(store).vectors.segments
    assert (whole.num_vectors, whole.num_numbers, whole.dtype) == (len(live), NUM_PASSAGES + 40, "float16")
    assert recall(found(store, bundle, queries), expected) >= LEAST_OF_OTHERS
    assert read_store_manifest(store).vectors.quantiser == quantiser
    convert_store(store, tmp_path / "converted", "fp16")
    for path in (store, tmp_path / "converted"):
        report = verify_store(path)
        assert (report.damaged, report.unnamed) == ((), ())
    assert found(tmp_path / "converted", bundle, queries) == found(store, bundle, queries)


def test_a_store_goes_from_one_search_to_the_other(bundle, store, built, tmp_path):
    queries = clustered(10, seed=1)
    entry = read_store_manifest(store).vectors
    summary = index_store(store, search="exact")
    assert (summary.search, summary.added, summary.recall) == ("exact", 0, None)
    now = read_store_manifest(store).vectors
    assert (now.quantiser, now.segments[0].codes) == (None, None)
    assert now.segments[0].embeddings == entry.segments[0].embeddings
    assert found(store, bundle, queries) == exact(clustered(NUM_PASSAGES), range(NUM_PASSAGES), queries)
    summary = index_store(store, search="ivfpq")
    assert (summary.search, summary.added) == ("ivfpq", 0)
    again = read_store_manifest(store).vectors
    assert again.segments[0].embeddings == entry.segments[0].embeddings
    assert again.quantiser.file.sha256 == entry.quantiser.file.sha256
    assert again.segments[0].codes.sha256 == entry.segments[0].codes.sha256
    compact_store(store)
    assert verify_store(store).unnamed == ()
    with pytest.raises(OptionError, match="a store with vectors, found none"):
        index_store(built.with_name("plain"), search="exact")
    with pytest.raises(OptionError, match="one of auto, exact, ivfpq"):
        index_store(store, search="fast")


def test_what_has_outgrown_its_search_is_said(bundle, store, tmp_path, monkeypatch):
    index_store(store, search="exact")
    monkeypatch.setattr(quantise, "MOST_FOR_EXACT", NUM_PASSAGES - 1)
    assert any("--search ivfpq" in warning for warning in store_stats(store).warnings)
    warnings = append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", rows(1, NUM_PASSAGES))).warnings
    assert any("--search ivfpq" in warning for warning in warnings)
    assert index_store(store, search="auto").search == "ivfpq"
    assert not any("--search ivfpq" in warning for warning in store_stats(store).warnings)


def test_a_few_vectors_are_not_quantised(bundle, tmp_path):
    build_store(bundle, write_rows(tmp_path / "c.jsonl", rows(9)), tmp_path / "store")
    np.save(tmp_path / "x.npy", clustered(9))
    with pytest.raises(OptionError, match="256 vectors or more"):
        index_store(tmp_path / "store", embeddings=tmp_path / "x.npy", search="ivfpq")
    assert index_store(tmp_path / "store", embeddings=tmp_path / "x.npy").search == "exact"


@pytest.mark.parametrize("factor", [1e6, 1e-7])
def test_values_that_half_precision_does_not_keep_stay_whole(bundle, built, tmp_path, factor):
    store = shutil.copytree(built.with_name("plain"), tmp_path / "store")
    np.save(tmp_path / "x.npy", clustered(NUM_PASSAGES) * np.float32(factor))
    index_store(store, embeddings=tmp_path / "x.npy", search="ivfpq")
    assert read_store_manifest(store).vectors.segments[0].dtype == "float32"
    queries = clustered(10, seed=1)
    expected = exact(clustered(NUM_PASSAGES), range(NUM_PASSAGES), queries)
    assert recall(found(store, bundle, queries), expected) >= LEAST_OF_OTHERS


def test_a_value_beyond_half_precision_behind_others_is_named(built, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.exporter.memory.vectors.AT_ONCE", 100)
    store = shutil.copytree(built.with_name("plain"), tmp_path / "store")
    vectors = clustered(NUM_PASSAGES)
    vectors[300, 3] = 1e6
    np.save(tmp_path / "x.npy", vectors)
    with pytest.raises(EmbeddingsError, match="values that float16 holds"):
        index_store(store, embeddings=tmp_path / "x.npy", search="ivfpq")
    assert read_store_manifest(store).vectors is None


@pytest.mark.parametrize(("name", "change"), [
    ("codes", {"rows": lambda rows: rows * 0}), ("codes", {"rows": lambda rows: rows - 1}),
    ("codes", {"offsets": lambda offsets: offsets[::-1]}), ("codes", {"codes": lambda codes: codes.astype(np.int8)}),
    ("quantiser", {"centroids": lambda centroids: centroids * np.nan}),
    ("quantiser", {"codebooks": lambda books: books.reshape(-1)}),
], ids=["rows twice", "rows below", "offsets", "dtype", "not finite", "shape"])
def test_codes_that_no_writer_makes_are_refused(bundle, store, name, change):
    entry = read_store_manifest(store).vectors
    file = entry.segments[0].codes if name == "codes" else entry.quantiser.file
    arrays = load_file(store / file.path)
    for key, make in change.items():
        arrays[key] = np.ascontiguousarray(make(arrays[key]))
    save_file(arrays, store / file.path)
    (store / file.path).write_bytes((store / file.path).read_bytes().ljust(file.bytes, b" ")[: file.bytes])
    with MemoryStore.open(store, Bundle.open(bundle), verify=False) as opened, pytest.raises(StoreError, match="index"):
        opened.search_dense(np.ones(DIMENSION), 3)


def damage(path, content, place=0):
    """One bit of the file changed, where it has these bytes."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["embeddings", "checksums"])
def test_a_vector_that_is_not_as_it_was_written_is_found_where_it_is_scored(bundle, store, file):
    segment = read_store_manifest(store).vectors.segments[0]
    vectors = np.load(store / segment.embeddings.path)
    checksums = np.load(store / segment.checksums.path)
    content = vectors[3].tobytes() if file == "embeddings" else checksums[3].tobytes()
    path = getattr(segment, file).path
    damage(store / path, content)
    query, far = vectors[3].astype(np.float32), -vectors[3].astype(np.float32)
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        with pytest.raises(StoreError, match="passage number 3: expected the vector that was written"):
            opened.search_dense(query, 3)
        assert 3 not in [hit.number for hit in opened.search_dense(far, 3)]
    with MemoryStore.open(store, Bundle.open(bundle), verify=False) as opened:
        assert len(opened.search_dense(query, 3)) == 3
    assert [item.path for item in verify_store(store).damaged] == [path]
    index_store(store, search="exact")  # copies no vector, and drops their checksums
    if file == "embeddings":
        before = tree(store)
        with pytest.raises(StoreError, match="SHA-256"):
            index_store(store, search="ivfpq")
        assert tree(store) == before


@pytest.mark.parametrize("make", [
    lambda checksums: checksums[:-1], lambda checksums: checksums.astype(np.int32), lambda checksums: checksums[None],
    None,
], ids=["fewer", "dtype", "shape", "absent"])
def test_checksums_that_no_writer_makes_are_refused(bundle, store, make):
    file = read_store_manifest(store).vectors.segments[0].checksums
    path = store / file.path
    if make is None:
        path.unlink()
    else:
        np.save(path, make(np.load(path)))
        path.write_bytes(path.read_bytes().ljust(file.bytes, b" ")[: file.bytes])
    with MemoryStore.open(store, Bundle.open(bundle)) as opened, pytest.raises(StoreError, match=file.path):
        opened.search_dense(np.ones(DIMENSION), 3)


def test_checksums_that_are_not_of_the_vectors_are_damage(store):
    """Every digest is right, and yet no reader would take the vector."""
    manifest = read_store_manifest(store)
    (segment,) = manifest.vectors.segments
    checksums = np.load(store / segment.checksums.path)
    checksums[7] += 1
    np.save(store / segment.checksums.path, checksums)
    changed = replace(segment, checksums=FileEntry.of(store, store / segment.checksums.path))
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, segments=(changed,))))
    (item,) = verify_store(store).damaged
    assert (item.path, item.found) == (segment.checksums.path, "another of row 7")


def test_vectors_without_checksums_are_compared_whole(bundle, store):
    """As those of schema 5."""
    manifest = read_store_manifest(store)
    (segment,) = manifest.vectors.segments
    (store / segment.checksums.path).unlink()
    changed = replace(segment, checksums=None)
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, segments=(changed,))))
    queries = clustered(5, seed=1)
    assert recall(found(store, bundle, queries), exact(clustered(NUM_PASSAGES), range(NUM_PASSAGES), queries)) >= 0.99
    damage(store / segment.embeddings.path, np.load(store / segment.embeddings.path)[3].tobytes())
    with pytest.raises(StoreError, match="SHA-256"):
        found(store, bundle, queries)


@pytest.mark.parametrize("change", [
    {"checksums": FileEntry("vectors/00001-00000-checksums.npy", 5, "0" * 64)},
    {"checksums": FileEntry("vectors/00001-00000-sums.npy", NUM_PASSAGES * 4 + 128, "0" * 64)}, {"codes": None},
], ids=str)
def test_what_no_writer_says_of_checksums_is_refused(bundle, store, change):
    manifest = read_store_manifest(store)
    segments = tuple(replace(part, **change) for part in manifest.vectors.segments)
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, segments=segments)))
    with pytest.raises(StoreError, match="vectors"):
        MemoryStore.open(store, Bundle.open(bundle))


@pytest.mark.parametrize("change", [
    {"num_lists": 0}, {"num_lists": 10**6}, {"num_parts": 0}, {"num_parts": 50}, {"width": 49}, {"width": 10**6},
    {"num_probes": 0}, {"num_probes": 10**6}, {"num_candidates": 0}, {"recall": 2.0}, {"num_trained": 0},
    {"file": FileEntry("vectors/00001-00000-quantiser.safetensors", 5, "0" * 64)},
], ids=str)
def test_what_no_writer_says_of_a_quantiser_is_refused(bundle, store, change):
    manifest = read_store_manifest(store)
    quantiser = replace(manifest.vectors.quantiser, **change)
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, quantiser=quantiser)))
    with pytest.raises(StoreError, match="vectors"):
        MemoryStore.open(store, Bundle.open(bundle))


def test_many_vectors_lie_in_segments_of_a_size(bundle, built, tmp_path, monkeypatch):
    for module in ("vectors", "vector_segments"):
        monkeypatch.setattr(f"glimmer_export.exporter.memory.{module}.SEGMENT_PASSAGES", 250)
    store = shutil.copytree(built.with_name("plain"), tmp_path / "store")
    index_store(store, embeddings=built.with_name("vectors.npy"), search="ivfpq")
    assert [part.num_numbers for part in read_store_manifest(store).vectors.segments] == [250, 250, 100]
    queries = clustered(20, seed=1)
    assert recall(found(store, bundle, queries), exact(clustered(NUM_PASSAGES), range(NUM_PASSAGES), queries)) >= 0.99
    delete_passages(store, [3])
    compact_store(store)
    sizes = [(part.num_numbers, part.num_vectors) for part in read_store_manifest(store).vectors.segments]
    assert sizes == [(250, 249), (250, 250), (100, 100)]
    assert vector_segments.SEGMENT_PASSAGES == 250
