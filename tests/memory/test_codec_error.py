"""What a codec is fitted to, what it loses of other passages, and what is said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.memory import append_passages, build_store, convert_store, delete_passages
from glimmer_export.exporter.memory import build as build_module
from glimmer_export.exporter.memory import codec_fit as module
from glimmer_export.exporter.memory import convert as convert_module
from glimmer_export.exporter.memory import encode as encode_module
from glimmer_export.exporter.memory.codec_fit import (
    MOST_SNR_DB,
    CodecError,
    CodecSample,
    ErrorMeter,
    SampleErrors,
    after_another,
    choose_sample,
    fit_warnings,
)
from glimmer_export.exporter.tolerances import CODEC_SNR_DROP_DB
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import decode_fp16, encode_fp16
from glimmer_export.runtime.contract import CODECS, MANIFEST, CodecSnr, OutputError, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.assert_close import assert_close
from tests.bundle_factory import WORDS, make_bundle, tree, write_rows

FITTED = [codec for codec in CODECS if codec != "fp16"]
SHARD = 300
ROWS = [{"id": number, "text": f"w{number} w{number % 7} w{number % 11}"} for number in range(40)]
CHANNELS = np.array([30, 30, 1, 1, 1, 1, 1, 1], np.float32)


@given(st.integers(0, 9000), st.integers(0, 1500))
def test_what_is_measured_is_another_part_of_the_same_corpus(count, fitted):
    sample = choose_sample(range(count), fitted)
    assert len(sample.fitted) == min(count, fitted)
    assert len(sample.outside) == min(count - len(sample.fitted), module.MEASURED_PASSAGES)
    assert not sample.fitted & sample.outside
    both = sorted(sample.fitted | sample.outside)
    assert set(both) <= set(range(count))
    if fitted > 1 and both:
        assert (both[0], both[-1]) == (0, count - 1)


def test_choosing_from_a_large_corpus_keeps_no_list_of_it():
    numbers = Mock(spec=Sequence)
    numbers.__len__ = lambda _: 21_000_000
    numbers.__getitem__ = lambda _, place: place
    sample = choose_sample(numbers, 1024)  # which goes through nothing: a Mock has no __iter__
    assert (len(sample.fitted), len(sample.outside)) == (1024, module.MEASURED_PASSAGES)
    assert max(sample.fitted) == 20_999_999


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A bundle for every codec; 2,047 passages whose last 700 have words of their own; and their store in fp16."""
    folder, random = tmp_path_factory.mktemp("sorted"), np.random.default_rng(1)
    rows = [
        {"id": number, "title": "", "text": " ".join(random.choice(WORDS[:20] if number < 1347 else WORDS[40:], 5))}
        for number in range(2047)
    ]
    make_bundle(folder / "bundle", codecs=tuple(CODECS))
    write_rows(folder / "corpus.jsonl", rows)
    build_store(folder / "bundle", folder / "corpus.jsonl", folder / "fp16", passages_per_shard=SHARD, threads=1)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The store in pq16x, built from the corpus."""
    folder = tmp_path_factory.mktemp("built")
    summary = build(source, folder / "pq16x", "pq16x")
    return folder / "pq16x", summary


def build(source, output, codec, corpus="corpus.jsonl", **options):
    settings = {"codec": codec, "passages_per_shard": SHARD, "threads": 1, **options}
    return build_store(source / "bundle", source / corpus, output, **settings)


def memories(source, store):
    """Of every passage, by its number, (tokens, d_model)."""
    with MemoryStore.open(store, Bundle.open(source / "bundle")) as opened:
        return [opened.codec.decode(opened.memory(number).tensors) for number in range(opened.num_passages)]


def snr_db(exact, found, numbers):
    signal = sum(np.square(exact[number], dtype=np.float64).sum() for number in numbers)
    return 10 * np.log10(signal / sum(np.square(found[number] - exact[number]).sum() for number in numbers))


@pytest.mark.parametrize("way", ["build", "convert"])
def test_the_end_of_a_sorted_corpus_is_kept_as_well_as_its_beginning(source, built, tmp_path, way):
    """A sample in steps of N // 1024 ends in the middle of 2,047 passages."""
    store, _ = built
    if way == "convert":
        store = tmp_path / "store"
        convert_store(source / "fp16", store, "pq16x")
    exact, found = memories(source, source / "fp16"), memories(source, store)
    first, last = snr_db(exact, found, range(1024)), snr_db(exact, found, range(1347, 2047))
    assert last > first - CODEC_SNR_DROP_DB / 2


def test_a_build_is_fitted_to_what_a_conversion_of_its_fp16_store_is(source, tmp_path, monkeypatch):
    """In the same order: k-means would make another codebook, by chance better or worse."""
    samples = []

    def fit(_name, _width, sample):
        samples.append(list(sample))
        return {"memory_channel_scale": np.ones(8, np.float32)}

    for way in (build_module, convert_module):
        monkeypatch.setattr(way, "fit_codec", fit)
    build(source, tmp_path / "built", "int8")
    convert_store(source / "fp16", tmp_path / "converted", "int8")
    assert len(samples[0]) == len(samples[1]) == module.SAMPLE_PASSAGES
    for one, other in zip(*samples, strict=True):
        assert_close(one, other, "fp16_codec")  # in a batch of another shape a value may round to its neighbour
        assert (decode_fp16(*encode_fp16(one)) == one).all()


@pytest.mark.parametrize("codec", FITTED)
def test_a_build_and_a_conversion_keep_the_memory_alike(source, tmp_path, codec):
    summary = build(source, tmp_path / "built", codec)
    converted = convert_store(source / "fp16", tmp_path / "converted", codec)
    assert converted.codec_snr.fitted_db == pytest.approx(summary.codec_snr.fitted_db, abs=0.3)
    assert converted.codec_snr.outside_db == pytest.approx(summary.codec_snr.outside_db, abs=0.3)


def test_the_figures_are_those_of_the_memory(source, built):
    store, summary = built
    exact, found = memories(source, source / "fp16"), memories(source, store)
    sample = choose_sample(range(2047), module.SAMPLE_PASSAGES)
    assert summary.codec_snr.fitted_db == pytest.approx(snr_db(exact, found, sample.fitted), abs=0.02)
    assert summary.codec_snr.outside_db == pytest.approx(snr_db(exact, found, sample.outside), abs=0.02)
    assert read_store_manifest(store).codec_snr == summary.codec_snr
    assert summary.warnings == ()
    assert build(source, store, "pq16x").codec_snr == summary.codec_snr  # where it was complete already


def test_fp16_is_fitted_to_nothing(source):
    snr = read_store_manifest(source / "fp16").codec_snr
    assert snr.fitted_db is None
    assert snr.outside_db > 60


def test_a_store_without_memory_has_no_figure(source, tmp_path):
    bundle = make_bundle(tmp_path / "fid", architecture="fid")
    summary = build_store(bundle, source / "corpus.jsonl", tmp_path / "store", threads=1)
    assert (summary.codec_snr, summary.warnings) == (None, ())


def test_where_all_passages_are_in_the_sample_there_are_no_others(source, tmp_path):
    write_rows(source / "few.jsonl", [{"id": number, "text": f"w{number} w1"} for number in range(9)])
    summary = build(source, tmp_path / "store", "int8", "few.jsonl")
    assert summary.codec_snr.outside_db is None
    assert summary.codec_snr.usual_db == summary.codec_snr.fitted_db > 30


def test_a_sample_that_does_not_stand_for_the_corpus_is_warned_of(source, tmp_path, monkeypatch):
    """Two passages, the first and the last, of 40 kinds of words."""
    monkeypatch.setattr(encode_module, "SAMPLE_PASSAGES", 2)
    summary = build(source, tmp_path / "store", "pq16x")
    assert summary.codec_snr.fitted_db - summary.codec_snr.outside_db > CODEC_SNR_DROP_DB
    assert len(summary.warnings) == 1
    assert f"{summary.codec_snr.outside_db:.1f} dB" in summary.warnings[0]


def test_a_killed_build_keeps_the_figures_of_its_shards(source, built, tmp_path, monkeypatch):
    import glimmer_export.exporter.memory.runners.job as job_module

    encode = job_module.encode_shard

    def stop(store, index, *arguments, **keywords):
        if index == 4:
            raise KeyboardInterrupt
        return encode(store, index, *arguments, **keywords)

    monkeypatch.setattr(job_module, "encode_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "store", "pq16x")
    monkeypatch.setattr(job_module, "encode_shard", encode)
    assert build(source, tmp_path / "store", "pq16x").resumed_shards == 4
    assert tree(tmp_path / "store") == tree(built[0])


def test_unfinished_work_of_another_sample_is_not_continued(source, tmp_path, monkeypatch):
    """Work of a version that saw the beginning alone has no sample in its plan."""
    import glimmer_export.exporter.memory.runners.job as job_module

    monkeypatch.setattr(job_module, "encode_shard", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "store", "int8")
    plan = tmp_path / "store.partial" / "plan.json"
    data = json.loads(plan.read_text(encoding="utf-8"))
    del data["sample_passages"]
    plan.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(OutputError, match="--restart"):
        build(source, tmp_path / "store", "int8")


def test_deleted_passages_are_no_part_of_a_conversions_sample(source, tmp_path):
    """Left are passages of two words, after a hundred that no others are like."""
    random = np.random.default_rng(2)
    rows = [{"id": number, "text": " ".join(random.choice(WORDS[:40], 5))} for number in range(100)]
    rows += [{"id": number, "text": "w50 w51"} for number in range(100, 140)]
    write_rows(source / "deleted.jsonl", rows)
    build(source, tmp_path / "fp16", "fp16", "deleted.jsonl")
    delete_passages(tmp_path / "fp16", list(range(100)))
    summary = convert_store(tmp_path / "fp16", tmp_path / "store", "pq16x")
    assert summary.codec_snr.fitted_db > 100  # a codebook has room for so few tokens


def inflated(monkeypatch):
    """From now on some channels of what is encoded are 30 times as large."""
    encode = encode_module.encode_passages

    def passages(*arguments):
        return [memory * CHANNELS for memory in encode(*arguments)]

    monkeypatch.setattr(encode_module, "encode_passages", passages)


@pytest.fixture(scope="module")
def small(source, tmp_path_factory):
    """Stores of 40 passages, by codec."""
    folder = tmp_path_factory.mktemp("small")
    write_rows(source / "small.jsonl", ROWS)

    def get(codec):
        if not (folder / codec).exists():
            build(source, folder / codec, codec, "small.jsonl")
        return folder / codec

    return get


def more(path):
    """The same passages, by other ids."""
    return write_rows(path, [{**row, "id": f"more {row['id']}"} for row in ROWS])


@pytest.mark.parametrize("codec", ["int8", "int4", "pq8x"])
def test_channels_that_grew_after_the_fit_are_warned_of(source, small, tmp_path, monkeypatch, codec):
    bundle = source / "bundle"
    store = shutil.copytree(small(codec), tmp_path / "store")
    same = append_passages(store, bundle, more(tmp_path / "more.jsonl"), threads=1)
    assert same.snr_db == pytest.approx(same.store_snr.usual_db, abs=0.1)
    assert same.warnings == ()
    inflated(monkeypatch)
    rows = [{**row, "id": f"large {row['id']}"} for row in ROWS]
    large = append_passages(store, bundle, write_rows(tmp_path / "large.jsonl", rows), threads=1)
    assert large.store_snr == same.store_snr  # what was appended before does not lower the bar
    assert large.snr_db < large.store_snr.usual_db - CODEC_SNR_DROP_DB
    assert len(large.warnings) == 1
    assert f"{large.snr_db:.1f} dB" in large.warnings[0]


def test_fp16_holds_channels_of_any_size(source, small, tmp_path, monkeypatch):
    bundle = source / "bundle"
    store = shutil.copytree(small("fp16"), tmp_path / "store")
    inflated(monkeypatch)
    assert append_passages(store, bundle, more(tmp_path / "more.jsonl"), threads=1).warnings == ()


def test_a_store_that_was_not_measured_is_appended_to_without_a_word(source, small, tmp_path):
    bundle = source / "bundle"
    store = shutil.copytree(small("int8"), tmp_path / "store")
    manifest = json.loads((store / MANIFEST).read_text(encoding="utf-8"))
    del manifest["codec_snr"]
    shutil.rmtree(store / "replicas")  # it was built by an earlier version
    (store / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    summary = append_passages(store, bundle, more(tmp_path / "more.jsonl"), threads=1)
    assert summary.snr_db > 30
    assert (summary.store_snr, summary.warnings) == (None, ())


def test_what_an_earlier_codec_lost_is_in_a_converted_stores_figure(source, small, tmp_path):
    """Else what is appended, which only one codec has rounded, would be held against memory that it fits exactly."""
    bundle = source / "bundle"
    summary = convert_store(small("int4"), tmp_path / "store", "int4")
    before, after = (read_store_manifest(store).codec_snr for store in (small("int4"), tmp_path / "store"))
    assert summary.codec_snr.fitted_db > before.fitted_db + CODEC_SNR_DROP_DB
    assert after.fitted_db <= before.fitted_db
    assert append_passages(tmp_path / "store", bundle, more(tmp_path / "more.jsonl"), threads=1).warnings == ()


def test_errors_by_hand():
    codec = open_codec("fp16", 2, {}, subject="store")
    meter = ErrorMeter(codec, CodecSample(frozenset({3}), frozenset({4, 5})))
    memory = np.array([[3.0, 4.0]], np.float32)
    halved = codec.encode(memory / 2)
    for number in (2, 3, 4, 5, 6):
        meter.add(number, memory, codec.encode(memory) if number == 5 else halved)
    errors = meter.errors
    assert errors == SampleErrors(CodecError(1, 25.0, 6.25), CodecError(2, 50.0, 6.25))
    assert errors.snr() == CodecSnr(6.02, 9.03)
    total = SampleErrors.total([errors, SampleErrors(), errors])
    assert (total.fitted.passages, total.outside.passages, total.snr()) == (2, 4, errors.snr())


def test_the_ends_of_the_scale():
    assert CodecError().snr_db is None
    assert CodecError(1, 0.0, 0.0).snr_db is None  # memory that is all 0
    assert CodecError(1, 1.0, 0.0).snr_db == MOST_SNR_DB
    assert CodecError(1, 1.0, np.inf).snr_db < -100
    assert SampleErrors().snr() is None
    assert after_another(CodecSnr(20.0, None), 20.0) == CodecSnr(16.99, None)
    assert after_another(CodecSnr(20.0, 20.0), None) is None
    assert fit_warnings(CodecSnr(20.0, 17.1)) == fit_warnings(CodecSnr(None, 1.0)) == fit_warnings(None) == ()
    assert fit_warnings(CodecSnr(20.0, 17.0))
