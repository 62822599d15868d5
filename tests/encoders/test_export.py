"""Encoders exported from directories: their vectors are those of sentence-transformers; what is refused, by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glimmer_export.exporter.encoders import EncoderChoices, export_encoder
from glimmer_export.exporter.encoders.source import read_encoder_source
from glimmer_export.runtime.contract import CheckpointError, EmbeddingsError, OptionError, OutputError
from glimmer_export.runtime.contract.vector_layout import EncoderSettings
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from tests.bundle_factory import WORDS, rewrite, tree
from tests.encoders.sources import POOLING, TYPES, WIDTH, write_bert, write_gtr, write_json

TEXTS = ["w1", "w2 w7 w1", " ".join(WORDS[:40]), "unknown words w3", "w9 " * 200]
PROMPTS = {"query": "query: ", "document": "passage: "}


def opened(directory: Path) -> SentenceEncoder:
    settings = EncoderSettings(**json.loads((directory / "encoder.json").read_text(encoding="utf-8")))
    return SentenceEncoder(directory / "model.onnx", directory / "tokenizer.json", settings, threads=1)


def theirs(directory: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own old names, which the directories of the hub have
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def assert_like_theirs(source: Path, exported: Path) -> None:
    ours, model = opened(exported), theirs(source)
    passages = model.encode_document(TEXTS, show_progress_bar=False)
    questions = model.encode_query(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(ours.passages([("", text) for text in TEXTS]), passages, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.stack([ours.question(text) for text in TEXTS]), questions, rtol=0, atol=1e-5)
    assert np.abs(passages[0] - passages[1]).max() > 1e-2


@pytest.fixture(scope="module")
def gtr(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gtr")
    export_encoder(write_gtr(folder / "source", whole=True), folder / "encoder")
    return folder


def test_gtr_has_the_vectors_of_sentence_transformers(gtr):
    assert_like_theirs(gtr / "source", gtr / "encoder")
    assert np.linalg.norm(opened(gtr / "encoder").question("w1")) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_bert_with_prompts_has_the_vectors_of_sentence_transformers(tmp_path, pooling):
    source = write_bert(
        tmp_path / "source", prompts=PROMPTS, pooling={"embedding_dimension": WIDTH, "pooling_mode": pooling}
    )
    report = export_encoder(source, tmp_path / "encoder")
    assert (report.query_prefix, report.passage_prefix, report.max_length) == ("query: ", "passage: ", 24)
    assert report.parity.limit == 1e-5 > report.parity.max_abs_err > 0
    assert_like_theirs(source, tmp_path / "encoder")


def test_a_plain_directory_takes_its_pooling_from_the_choices(tmp_path):
    source = write_bert(tmp_path / "source", prompts=PROMPTS)
    (source / "modules.json").unlink()
    choices = EncoderChoices(pooling="cls", normalise=False, query_prefix="w3 ", max_length=5)
    report = export_encoder(source, tmp_path / "encoder", choices)
    assert (report.pooling, report.max_length) == ("cls", 5)
    assert (report.query_prefix, report.passage_prefix) == ("w3 ", "passage: ")
    ours = opened(tmp_path / "encoder")
    assert np.linalg.norm(ours.question("w1")) > 1.5
    np.testing.assert_array_equal(ours.question("w1 w2 w4 w5 w6"), ours.question("w1 w2 w4"))


@pytest.mark.parametrize(
    ("prompts", "default", "found"),
    [
        ({"query": "q ", "passage": "p ", "corpus": "c "}, None, ("q ", "p ")),
        ({"query": None, "document": None, "all": "a "}, "all", ("a ", "a ")),
        ({"query": "", "document": ""}, "query", ("", "")),
        ({}, None, ("", "")),
    ],
)
def test_prompts_are_those_of_questions_and_of_passages(tmp_path, prompts, default, found):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    settings = {"prompts": prompts, "default_prompt_name": default}
    write_json(tmp_path / "config_sentence_transformers.json", settings)
    source = read_encoder_source(tmp_path, EncoderChoices())
    assert (source.query_prefix, source.passage_prefix) == found


def test_int8_says_how_far_it_is(gtr, tmp_path):
    report = export_encoder(gtr / "source", tmp_path / "int8", int8=True)
    assert report.precision == "int8"
    assert report.parity.limit is None
    assert 0.9 < report.parity.least_cosine < 1 - 1e-6
    assert not np.array_equal(opened(tmp_path / "int8").question("w1"), opened(gtr / "encoder").question("w1"))


def test_what_others_wrote_is_not_overwritten(gtr, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        export_encoder(gtr / "source", tmp_path / "mine", overwrite=True)


def pooled(**changes):
    return lambda source: write_json(source / "1_Pooling" / "config.json", POOLING | changes)


def dense(**changes):
    return lambda source: rewrite(source / "2_Dense" / "config.json", **changes)


def modules(change):
    def run(source):
        path = source / "modules.json"
        entries = json.loads(path.read_text(encoding="utf-8"))
        change(entries)
        write_json(path, entries)

    return run


def weights(name, change):
    def run(source):
        tensors = load_file(source / name)
        change(tensors)
        save_file(tensors, source / name)

    return run


def layer(tensors):
    for name in [name for name in tensors if name.startswith("encoder.block.1.")]:
        tensors[name.replace("block.1.", "block.2.")] = tensors[name].clone()


WEIGHTS = "model.safetensors"
REFUSED = {
    "another pooling": (pooled(pooling_mode_mean_tokens=False, pooling_mode_lasttoken=True), "lasttoken"),
    "two poolings": (pooled(pooling_mode_cls_token=True), "cls and mean"),
    "a prompt left out": (pooled(include_prompt=False), "include_prompt"),
    "another module": (modules(lambda entries: entries[2].update(type=f"{TYPES}CNN")), "models.CNN"),
    "a module of its own": (modules(lambda entries: entries[2].update(type="custom_code.Dense")), "custom_code"),
    "another order": (modules(lambda entries: entries.reverse()), "Normalize, Dense"),
    "a path that climbs out": (modules(lambda entries: entries[1].update(path="../1_Pooling")), "stay inside"),
    "no list": (lambda source: write_json(source / "modules.json", {}), "no list"),
    "an activation of its own": (dense(activation_function="os.system"), "os.system"),
    "sizes beyond reason": (dense(out_features=1 << 40), "out_features"),
    "a projection of other sizes": (dense(out_features=7), r"\[6, 16\]"),
    "a model of its own code": (lambda source: rewrite(source / "config.json", model_type="mine"), "'mine'"),
    "layers without end": (lambda source: rewrite(source / "config.json", num_layers=10**9), "num_layers"),
    "a vocabulary without end": (lambda source: rewrite(source / "config.json", vocab_size=10**12), "shape"),
    "a layer that is not there": (lambda source: rewrite(source / "config.json", num_layers=3), "none"),
    "a layer too many": (weights(WEIGHTS, layer), "layers beyond"),
    "a tensor of another shape": (
        weights(WEIGHTS, lambda tensors: tensors.update({"encoder.final_layer_norm.weight": torch.ones(3)})), r"\[3\]"
    ),
    "no tokenizer": (lambda source: (source / "tokenizer.json").write_text("{", encoding="utf-8"), "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_and_nothing_is_written(tmp_path, name):
    source = write_gtr(tmp_path / "source")
    change, said = REFUSED[name]
    change(source)
    before = tree(tmp_path)
    with pytest.raises((EmbeddingsError, CheckpointError), match=said):
        export_encoder(source, tmp_path / "encoder")
    assert tree(tmp_path) == before


def test_choices_against_modules_json_are_refused(gtr, tmp_path):
    with pytest.raises(OptionError, match=r"modules\.json"):
        export_encoder(gtr / "source", tmp_path / "encoder", EncoderChoices(pooling="cls"))
