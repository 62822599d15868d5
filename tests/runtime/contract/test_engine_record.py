"""The record of a bundle's engines: read back as written, and each way in which it can be wrong refused by name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.runtime.contract import (
    ENGINE_LIBRARIES,
    ENGINE_RECORD,
    ENGINE_SCHEMA_VERSION,
    BundleError,
    EngineEntry,
    EngineKey,
    EngineRecord,
    FileEntry,
    GraphEntry,
    ShapeRange,
    graph_digest,
    read_engine_record,
    record_to_json,
)

NAME = st.text("abcdefghijklmnopqrstuvwxyz_.0123456789", min_size=1, max_size=12).filter(lambda name: name.strip("."))
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
KEYS = st.builds(
    EngineKey,
    library=st.sampled_from(ENGINE_LIBRARIES),
    version=st.lists(st.integers(0, 999), min_size=2, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    compute_capability=st.tuples(st.integers(5, 12), st.integers(0, 9)).map(lambda parts: "{}.{}".format(*parts)),
    device=st.none() | st.text("ABCXYZabcxyz0189 -()/®", min_size=1, max_size=30),
)
RANGES = st.lists(st.tuples(*[st.integers(1, 9)] * 3).map(sorted), max_size=4).map(
    lambda dims: ShapeRange(*(tuple(dim[place] for dim in dims) for place in range(3)))
)
ENTRIES = st.builds(
    EngineEntry,
    file=st.builds(FileEntry, path=NAME.map("{}.engine".format), bytes=st.integers(0, 1 << 40), sha256=DIGEST),
    graph_sha256=DIGEST,
    profiles=st.lists(st.dictionaries(NAME, RANGES, max_size=3), max_size=2).map(tuple),
    build_seconds=st.floats(0, 1e6),
)
RECORDS = st.builds(
    EngineRecord, format=st.just("glimmer-engines"), schema_version=st.just(ENGINE_SCHEMA_VERSION), key=KEYS,
    target=NAME, stand_in=st.booleans(),
    engines=st.dictionaries(NAME, ENTRIES, max_size=3),
)  # fmt: skip


def written(parent: Path, record: EngineRecord) -> Path:
    directory = parent / record.key.fingerprint
    directory.mkdir(exist_ok=True)
    (directory / ENGINE_RECORD).write_text(record_to_json(record), encoding="utf-8")
    return directory


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDS)
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    assert read_engine_record(written(tmp_path, record)) == record


@settings(max_examples=60)
@given(KEYS)
def test_a_fingerprint_is_one_plain_name_below_any_directory(key):
    assert re.fullmatch(r"tensorrt(-rtx)?-[\d.]+-sm\d+(-[a-z0-9-]*)?", key.fingerprint)


def test_fingerprints_by_hand():
    t4 = EngineKey("tensorrt", "10.3.0.26", "7.5", "Tesla T4")
    assert t4.fingerprint == "tensorrt-10.3.0.26-sm75-tesla-t4"
    assert replace(t4, library="tensorrt_rtx", device=None).fingerprint == "tensorrt-rtx-10.3.0.26-sm75"


def test_a_graph_has_the_digest_of_all_its_files_in_their_order():
    files = [FileEntry("graphs/a.onnx", 3, "1" * 64), FileEntry("graphs/a.onnx.data", 5, "2" * 64)]
    graph = GraphEntry(tuple(files), (), (), "fp32", 0, 0)
    digests = {
        graph_digest(replace(graph, files=tuple(taken)))
        for taken in (files, files[::-1], files[:1], [replace(files[0], sha256="3" * 64), files[1]])
    }
    assert len(digests) == 4
    # Neither the size nor where it lies: the digest of its bytes says which graph it is.
    assert graph_digest(replace(graph, files=(replace(files[0], path="x", bytes=9), files[1]))) == graph_digest(graph)


RECORD = EngineRecord(
    schema_version=ENGINE_SCHEMA_VERSION,
    key=EngineKey("tensorrt_rtx", "1.7.1.116", "8.6", None),
    target="jetson-orin-agx",
    stand_in=True,
    engines={
        "live_stage_b": EngineEntry(
            FileEntry("live_stage_b.engine", 1234, "a" * 64), "b" * 64,
            ({"selected": ShapeRange((1, 1), (1, 3), (4, 5))},), 1.5,
        )
    },
)  # fmt: skip

Damage = Callable[[dict[str, Any]], object]
CORRUPTIONS: dict[str, tuple[Damage, str]] = {
    "newer schema": (lambda data: data.update(schema_version=3), "found 3; install a newer glimmer-export"),
    "older schema": (lambda data: data.update(schema_version=0), "found 0; build the engines again"),
    "schema a boolean": (lambda data: data.update(schema_version=True), "schema_version 1 to 2, found True"),
    "no schema": (lambda data: data.pop("schema_version"), "schema_version 1 to 2, found None"),
    "missing field": (lambda data: data.pop("target"), "a field target"),
    "unknown field": (lambda data: data.update(cuda="13"), "cuda"),
    "stand_in a number": (lambda data: data.update(stand_in=1), r"stand_in: expected bool"),
    "engines a list": (lambda data: data.update(engines=[]), "engines: expected an object"),
    "key a string": (lambda data: data.update(key="sm86"), "key: expected an object"),
    "unknown library": (lambda data: data["key"].update(library="tensorrt_llm"), "key: expected a library"),
    "version no version": (lambda data: data["key"].update(version="../1.7"), "its version"),
    "version with a newline": (lambda data: data["key"].update(version="1.7.1.116\n"), "its version"),
    "capability no capability": (lambda data: data["key"].update(compute_capability="86"), "a compute capability"),
    "device without a name": (lambda data: data["key"].update(device=""), "and a device"),
    "device of a long name": (lambda data: data["key"].update(device="x" * 101), "and a device"),
    "another version than its directory": (
        lambda data: data["key"].update(version="1.8.0.1"), "a directory named tensorrt-rtx-1.8.0.1-sm86",
    ),
    "another capability than its directory": (
        lambda data: data["key"].update(compute_capability="7.5"), "a directory named tensorrt-rtx-1.7.1.116-sm75",
    ),
    "a device that its directory has not": (
        lambda data: data["key"].update(device="Tesla T4"), "a directory named .*-tesla-t4",
    ),
    "engine outside": (lambda data: entry(data)["file"].update(path="../manifest.json"), "stay inside"),
    "engine at an absolute path": (lambda data: entry(data)["file"].update(path="/etc/passwd"), "stay inside"),
    "engine without a file": (lambda data: entry(data).pop("file"), "a field file"),
    "size a string": (lambda data: entry(data)["file"].update(bytes="1234"), "bytes: expected int"),
    "digest a number": (lambda data: entry(data).update(graph_sha256=7), "graph_sha256: expected str"),
    "seconds a string": (lambda data: entry(data).update(build_seconds="1.5"), "build_seconds: expected float"),
    "seconds not a number": (lambda data: entry(data).update(build_seconds=float("nan")), "NaN, which is no number"),
    "seconds below zero": (lambda data: entry(data).update(build_seconds=-1.0), "seconds of building"),
    "profiles an object": (lambda data: entry(data).update(profiles={}), "profiles: expected a list"),
    "least above the tuned": (lambda data: dims(data).update(min=[1, 4]), "min <= opt <= max"),
    "tuned above the greatest": (lambda data: dims(data).update(opt=[1, 6]), "min <= opt <= max"),
    "dimension zero": (lambda data: dims(data).update(min=[0, 1]), "0 < min"),
    "another rank": (lambda data: dims(data).update(max=[4, 5, 6]), "dimension by dimension"),
    "dimension a float": (lambda data: dims(data).update(max=[4, 5.0]), r"max\[1\]: expected int"),
}


def entry(data: dict[str, Any]) -> dict[str, Any]:
    return data["engines"]["live_stage_b"]


def dims(data: dict[str, Any]) -> dict[str, Any]:
    return entry(data)["profiles"][0]["selected"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_damaged_record_is_refused_by_name(name, tmp_path):
    damage, found = CORRUPTIONS[name]
    directory = written(tmp_path, RECORD)
    data = copy.deepcopy(json.loads((directory / ENGINE_RECORD).read_text(encoding="utf-8")))
    damage(data)
    (directory / ENGINE_RECORD).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=found) as error:
        read_engine_record(directory)
    assert "engines" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_is_no_json_object(content, tmp_path):
    directory = written(tmp_path, RECORD)
    (directory / ENGINE_RECORD).write_bytes(content)
    with pytest.raises(BundleError, match="expected a JSON object"):
        read_engine_record(directory)


def test_a_directory_without_a_record(tmp_path):
    with pytest.raises(BundleError, match=r"expected a file engines\.json, found none; build the engines again"):
        read_engine_record(tmp_path)


def test_a_record_of_a_directory_that_was_renamed(tmp_path):
    moved = written(tmp_path, RECORD).rename(tmp_path / "tensorrt-rtx-1.7.1.116-sm75")
    with pytest.raises(BundleError, match=r"named tensorrt-rtx-.*-sm86, found tensorrt-rtx-.*-sm75"):
        read_engine_record(moved)
