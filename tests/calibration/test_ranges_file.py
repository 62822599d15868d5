"""The table on disk: a round trip, and one test for each way in which it can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from glimmer_export.calibration.calibrators import METHODS
from glimmer_export.calibration.histogram import RunningRange
from glimmer_export.calibration.ranges import RangeTable
from glimmer_export.calibration.ranges_file import ARRAYS, TABLE, read_ranges, write_ranges
from glimmer_export.runtime.contract import CalibrationError, read_manifest
from tests.bundle_factory import entry, make_bundle, tree

CHUNK = st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=2, max_size=12)

NAME = st.text(max_size=8).filter(str.isprintable)


def tensor_of(values, channels=None):
    running = RunningRange(channels)
    running.observe(np.asarray(values, np.float32).reshape(-1, channels or 1))
    return running.result()


def table_of(manifest, tensors, **changes):
    """A table that gives every graph the same tensors."""
    table = RangeTable(
        method="max", samples=3, warnings=("few",), graphs=dict.fromkeys(manifest.graphs, tensors),
        graph_digests={name: graph.files[0].sha256 for name, graph in manifest.graphs.items()},
    )
    return replace(table, **changes)


def with_files(bundle: Path, manifest):
    """The manifest, vouching for the table as it is on disk."""
    return replace(manifest, calibration=tuple(entry(bundle, bundle / name) for name in (TABLE, ARRAYS)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("ranges") / "bundle")
    return bundle, read_manifest(bundle)


@pytest.fixture
def written(tmp_path):
    """A bundle with a table of two tensors a graph."""
    bundle = make_bundle(tmp_path / "bundle")
    manifest = read_manifest(bundle)
    tensors = {"x": tensor_of([1, -2, 3, 4], 2), "y/z": tensor_of([5, 6, 0.25])}
    write_ranges(bundle, table_of(manifest, tensors))
    return bundle, manifest


def same(first: RangeTable, second: RangeTable) -> bool:
    def plain(table):
        return [
            (graph, name, [np.asarray(value, object).tolist() for value in vars(item).values()])
            for graph, tensors in table.graphs.items() for name, item in tensors.items()
        ]

    return plain(first) == plain(second) and replace(first, graphs={}) == replace(second, graphs={})


@settings(max_examples=30)
@given(st.dictionaries(NAME, CHUNK, max_size=3), st.sampled_from(METHODS), st.booleans())
def test_a_table_that_was_written_is_read_back(plain, values, method, wide):
    bundle, manifest = plain
    tensors = {
        name: tensor_of(chunk[: len(chunk) // 2 * 2], 2 if wide else None) for name, chunk in values.items()
    }
    table = table_of(manifest, tensors, method=method)
    write_ranges(bundle, table)
    first = tree(bundle)
    found = read_ranges(bundle, with_files(bundle, manifest))
    assert same(found, table)
    assert all(item.histogram.dtype == np.int64 for graph in found.graphs.values() for item in graph.values())
    write_ranges(bundle, found)
    assert tree(bundle) == first


def test_equal_arrays_are_written_once(written):
    bundle, manifest = written
    assert len(load_file(bundle / ARRAYS)) == 3
    assert len(manifest.graphs) > 1


def test_equal_counts_of_another_size_keep_their_own_amax(plain):
    bundle, manifest = plain
    tensors = {"small": tensor_of([0.5, -1.0, 1.5, 3.0]), "large": tensor_of([512.0, -1024.0, 1536.0, 3072.0])}
    assert (tensors["small"].histogram == tensors["large"].histogram).all()
    write_ranges(bundle, table_of(manifest, tensors))
    assert read_ranges(bundle, with_files(bundle, manifest)).graphs["live_stage_a"]["large"].amax == 3072.0


def test_counts_beyond_int32_are_kept(plain):
    bundle, manifest = plain
    tensor = tensor_of([1.0])
    big = replace(tensor, histogram=tensor.histogram * 2**40, count=2**40)
    write_ranges(bundle, table_of(manifest, {"x": big}))
    found = read_ranges(bundle, with_files(bundle, manifest))
    assert found.graphs["live_stage_a"]["x"].histogram.sum() == 2**40


def refuse(written, *words: str) -> None:
    bundle, manifest = written
    with pytest.raises(CalibrationError) as error:
        read_ranges(bundle, with_files(bundle, manifest))
    for word in (*words, "glimmer-export"):
        assert word in str(error.value)


def change_json(written, change) -> None:
    path = written[0] / TABLE
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def change_arrays(written, change) -> None:
    path = written[0] / ARRAYS
    arrays = {name: values.copy() for name, values in load_file(path).items()}
    change(arrays)
    save_file(arrays, path)


def tensor_x(data):
    return data["graphs"]["live_stage_a"]["x"]


def test_a_bundle_without_a_table_says_how_to_get_one(plain):
    with pytest.raises(CalibrationError, match="calibrate the bundle again with `glimmer-export calibrate`"):
        read_ranges(*plain)


@pytest.mark.parametrize("name", [TABLE, ARRAYS])
def test_a_file_that_changed_or_is_gone(written, name):
    bundle, manifest = written
    vouched = with_files(bundle, manifest)
    content = (bundle / name).read_bytes()
    for damaged in (content + b" ", content[:-1] + bytes([content[-1] ^ 1])):
        (bundle / name).write_bytes(damaged)
        with pytest.raises(CalibrationError, match=name):
            read_ranges(bundle, vouched)
    (bundle / name).unlink()
    with pytest.raises(CalibrationError, match=name):
        read_ranges(bundle, vouched)


@pytest.mark.parametrize("version", [0, 3, "1", True, None])
def test_another_schema_version(written, version):
    change_json(written, lambda data: data.update(schema_version=version))
    refuse(written, "schema_version 1 to 2", "newer" if version == 3 else "calibrate")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data.update(strange=1), "strange"),
        (lambda data: data.pop("samples"), "samples"),
        (lambda data: data.update(samples=0), "samples"),
        (lambda data: data.update(samples="3"), "samples"),
        (lambda data: data.update(method="best"), "method"),
        (lambda data: tensor_x(data).pop("limit"), "limit"),
        (lambda data: tensor_x(data).update(minimum=5.0), "above"),
        (lambda data: tensor_x(data).update(minimum=float("nan")), "NaN, which is no number"),
        (lambda data: tensor_x(data).update(maximum=float("inf")), "Infinity, which is no number"),
        (lambda data: tensor_x(data).update(limit=float("inf")), "Infinity, which is no number"),
        (lambda data: tensor_x(data).update(maximum=10**400), "of more than 64 bits"),
        (lambda data: tensor_x(data).update(limit=9.0), "power of two"),
        (lambda data: tensor_x(data).update(limit=0.0), "power of two"),
        (lambda data: tensor_x(data).update(limit=-8.0), "power of two"),
        (lambda data: tensor_x(data).update(limit=4.0), "power of two above 4.0"),
        (lambda data: tensor_x(data).update(count=5), "5 values"),
        (lambda data: tensor_x(data).update(count=0), "0 values"),
        (lambda data: tensor_x(data).update(maximum=3.0), "channel_amax"),
        (lambda data: tensor_x(data).update(amax=5.0), "amax"),
        (lambda data: tensor_x(data).update(amax=float("nan")), "NaN, which is no number"),
        (lambda data: tensor_x(data)["percentiles"].update({"50": 1.0}), "percentile 50"),
        (lambda data: tensor_x(data)["percentiles"].update({"101": 1.0}), "percentile 101"),
        (lambda data: tensor_x(data)["percentiles"].update(most=1.0), "percentile most"),
        (lambda data: tensor_x(data).update(histogram=99), "in one alone"),
        (lambda data: tensor_x(data).update(channel_amax=99), "in one alone"),
        (lambda data: tensor_x(data).update(histogram="../x"), "histogram"),
        (lambda data: data["graphs"].pop("live_stage_a"), "live_stage_a"),
        (lambda data: data["graph_digests"].pop("live_stage_a"), "live_stage_a"),
        (lambda data: data["graph_digests"].update(live_stage_a="0" * 64), "ranges of the graph"),
        (lambda data: data["graphs"].update(more={}), "more"),
        (lambda data: data["graph_digests"].update(more="0" * 64), "more"),
    ],
)  # fmt: skip
def test_a_table_that_contradicts_itself_or_its_bundle(written, change, word):
    change_json(written, change)
    refuse(written, word)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_table_that_is_no_table(written, content):
    (written[0] / TABLE).write_bytes(content)
    refuse(written, "ranges.json")


def replace_histogram(values):
    return lambda arrays: arrays.update({"histogram/0": values})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda arrays: arrays.pop("histogram/0"), "in one alone"),
        (lambda arrays: arrays.update(strange=np.zeros(1, np.float32)), "in one alone"),
        (replace_histogram(np.zeros(1024, np.int32)), "I32 or I64 [2048]"),
        (replace_histogram(np.zeros((2048, 1), np.int32)), "I32 or I64 [2048]"),
        (replace_histogram(np.zeros(2048, np.float32)), "I32 or I64 [2048]"),
        (replace_histogram(np.eye(1, 2048, 5, dtype=np.int32)[0]), "4 values"),
        (replace_histogram(np.eye(2, 2048, dtype=np.int32)[0] * -4), "negative"),
        (replace_histogram(np.full(2048, 2**62)), "4 values"),
        (lambda arrays: arrays.update({"channel_amax/1": np.zeros(2, np.int32)}), "F32 [channels]"),
        (lambda arrays: arrays.update({"channel_amax/1": np.zeros((2, 1), np.float32)}), "F32 [channels]"),
        (lambda arrays: arrays.update({"channel_amax/1": np.zeros(0, np.float32)}), "F32 [channels]"),
        (lambda arrays: arrays.update({"channel_amax/1": np.array([3, 5], np.float32)}), "channel_amax"),
        (lambda arrays: arrays.update({"channel_amax/1": np.array([-3, 4], np.float32)}), "channel_amax"),
        (lambda arrays: arrays.update({"channel_amax/1": np.array([np.nan, 4], np.float32)}), "channel_amax"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_those_of_the_table(written, change, word):
    change_arrays(written, change)
    refuse(written, word)


@pytest.mark.parametrize("content", [b"", b"strange", b"\xff" * 64])
def test_arrays_that_are_no_safetensors_file(written, content):
    (written[0] / ARRAYS).write_bytes(content)
    refuse(written, "safetensors")


def test_a_table_behind_a_link_is_verified(written, tmp_path):
    bundle, manifest = written
    vouched = with_files(bundle, manifest)
    (bundle / TABLE).rename(tmp_path / "outside.json")
    (bundle / TABLE).symlink_to(tmp_path / "outside.json")
    assert read_ranges(bundle, vouched).graphs
    (tmp_path / "outside.json").write_bytes((tmp_path / "outside.json").read_bytes().replace(b"e", b"E", 1))
    with pytest.raises(CalibrationError, match="expected SHA-256"):
        read_ranges(bundle, vouched)


def test_values_a_power_of_two_apart_keep_an_amax_each(plain):
    bundle, manifest = plain
    tensors = {"codes": tensor_of([1024.0, -2000.0]), "memory": tensor_of([1.0, -2000 / 1024])}
    np.testing.assert_array_equal(tensors["codes"].histogram, tensors["memory"].histogram)
    write_ranges(bundle, table_of(manifest, tensors))
    read = read_ranges(bundle, with_files(bundle, manifest))
    assert read.graphs[next(iter(manifest.graphs))]["memory"].amax == 2000 / 1024
