"""A FiD of facebookresearch's code answers here as it does there: same texts, same limit, same tokens."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest, memory_digest
from glimmer_export.exporter.cost.report import CostRequest, resolve
from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.parity import ParityOptions, compare_with_checkpoint
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.contract import BundleError, CheckpointError, OptionError
from glimmer_export.runtime.text import PlainTokenizer, TextEncoder
from tests.assert_close import assert_close
from tests.bundle_factory import write_rows
from tests.fid_factory import (
    WORDS,
    fid_answer,
    fid_texts,
    give_table,
    hugging_face_tokenizer,
    make_reader,
    save_fid,
    word_tokenizer,
)  # fmt: skip

LENGTH, ANSWER, COUNT = 24, 12, 4


def corpus() -> list[dict[str, object]]:
    """Passages from a word up to more than the limit."""
    random = np.random.default_rng(11)
    lengths = random.integers(1, 30, 24)
    return [
        {"id": place, "title": str(random.choice(WORDS)), "text": " ".join(random.choice(WORDS, length))}
        for place, length in enumerate(lengths)
    ]


CORPUS = corpus()
QUESTIONS = ["w0 w7", "w1", "w2 w3 w4 w5 w6 w7 w8", "w20 w31 w42", "  w14 w15 ", "w59 w58", "w33 w1 w2 w9 w10 w12 w13"]


def passages_of(place: int) -> list[tuple[str, str]]:
    return [(str(row["title"]), str(row["text"])) for row in CORPUS[place : place + COUNT]]


@pytest.fixture(scope="module")
def fid(tmp_path_factory):
    """The model, its tokenizer, the converted checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("fid")
    theirs, tokenizer = give_table(make_reader(seed=3)), word_tokenizer()
    source = save_fid(copy.deepcopy(theirs), folder / "fid")
    tokenizer.save(str(source / "tokenizer.json"))
    config = folder / "fields.json"
    config.write_text(json.dumps({"passage_length": LENGTH, "num_retrieved": COUNT, "max_new_tokens": ANSWER}))
    convert_checkpoint("fid", source, folder / "ckpt", config=config)
    export_bundle(folder / "ckpt", folder / "bundle")
    return theirs, tokenizer, folder


def reference(fid, question: str, passages: list[tuple[str, str]]) -> list[int]:
    theirs, tokenizer, _ = fid
    return fid_answer(
        theirs, hugging_face_tokenizer(Tokenizer.from_str(tokenizer.to_str())), fid_texts(question, passages),
        text_maxlength=LENGTH, max_new_tokens=ANSWER,
    )


def test_the_config_is_fids_own(fid):
    config = read_checkpoint(fid[2] / "ckpt").config
    assert (config.architecture, config.question_layout) == ("fid", "joined")
    assert config.input_template == "question: {question} title: {title} context: {text}"
    assert (config.passage_length, config.question_length) == (LENGTH, LENGTH)
    assert (config.question_eos, config.passage_eos, config.cross_attention_bias) == (False, False, True)


def test_the_papers_lengths_are_the_defaults(fid, tmp_path):
    convert_checkpoint("fid", fid[2] / "fid", tmp_path / "ckpt")
    config = read_checkpoint(tmp_path / "ckpt").config
    assert (config.passage_length, config.num_retrieved, config.max_new_tokens) == (250, 100, 49)


def test_answers_are_fids(fid):
    """Passages that are cut, and several questions of unequal length in one batch."""
    places = range(0, 21, 3)
    expected = [reference(fid, question, passages_of(place)) for question, place in zip(QUESTIONS, places, strict=True)]
    assert len({tuple(answer) for answer in expected}) > 3  # so that an answer says what was read
    with Session.open(fid[2] / "bundle", threads=1) as session:
        given = [[Passage(None, title, text) for title, text in passages_of(place)] for place in places]
        together = session.answer_many(QUESTIONS, passages=given)
        assert [list(answer.token_ids) for answer in together] == expected
        alone = [session.answer(question, passages=row) for question, row in zip(QUESTIONS, given, strict=True)]
        assert [list(answer.token_ids) for answer in alone] == expected


def test_keys_stand_where_fid_pads_them_to(fid):
    """Passages of fewer tokens than the answer's: the table must not move keys of the second as if of the first."""
    short = [("w1", "w2"), ("w3", "w4"), ("w5", "w6")]
    expected = [reference(fid, question, short) for question in QUESTIONS]
    with Session.open(fid[2] / "bundle", threads=1) as session:
        given = [[Passage(None, title, text) for title, text in short]] * len(QUESTIONS)
        answers = [session.answer(question, passages=row) for question, row in zip(QUESTIONS, given, strict=True)]
        assert [list(answer.token_ids) for answer in answers] == expected
        together = session.answer_many(QUESTIONS, passages=given)
        assert [list(answer.token_ids) for answer in together] == expected


def test_answers_from_a_store(fid, tmp_path):
    build_store(fid[2] / "bundle", write_rows(tmp_path / "corpus.jsonl", CORPUS), tmp_path / "store", threads=1)
    with Session.open(fid[2] / "bundle", tmp_path / "store", threads=1) as session:
        for question in QUESTIONS:
            answer = session.answer(question)
            found = [(ranked.passage.title, ranked.passage.text) for ranked in answer.passages]
            assert 1 <= len(found) <= COUNT
            assert list(answer.token_ids) == reference(fid, question, found)


def test_parity_with_the_checkpoint(fid, tmp_path):
    store = tmp_path / "store"
    build_store(fid[2] / "bundle", write_rows(tmp_path / "corpus.jsonl", CORPUS), store, threads=1)
    questions = [Question(str(place), question, ("w1",), None, None) for place, question in enumerate(QUESTIONS)]
    report = compare_with_checkpoint(
        fid[2] / "bundle", fid[2] / "ckpt", store, questions, ParityOptions(batch_size=3, threads=1)
    )
    assert (report.questions, report.answers_equal) == (len(QUESTIONS), 1.0)


def test_the_cost_of_a_question_is_of_the_one_limit(fid):
    assert resolve(CostRequest(bundle=fid[2] / "bundle")).workload.joint_tokens == LENGTH
    given = resolve(CostRequest(bundle=fid[2] / "bundle", question_tokens=5)).workload
    assert (given.question_tokens, given.passage_tokens) == (5, LENGTH - 5)


def test_a_block_would_be_another_model(fid):
    """Question and passage apart, as our own FiD has them, are other tokens at other positions."""
    joined = model_from_checkpoint(read_checkpoint(fid[2] / "ckpt"))
    fields = {
        "question_layout": "block", "input_template": None, "passage_template": "title: {title} context: {text}",
        "question_template": "question: {question}",
    }
    block = GlimmerModel(joined.config.model_copy(update=fields)).eval()
    block.load_state_dict(joined.state_dict())
    answers = []
    for model in (joined, block):
        text = TextEncoder(PlainTokenizer(word_tokenizer()), model.config.shape)
        answers.append([])
        for question, place in zip(QUESTIONS, range(0, 21, 3), strict=True):
            read = passages_of(place)
            if model is joined:
                ids = [text.joined(question, *passage)[0] for passage in read]
            else:
                ids = [text.passage(*passage)[0] for passage in read]
            answers[-1].append(TorchReference(model).answer(text.question(question), ids, None, None).tokens)
    places = range(0, 21, 3)
    expected = [reference(fid, question, passages_of(place)) for question, place in zip(QUESTIONS, places, strict=True)]
    assert answers[0] == expected
    assert answers[1] != expected


def test_texts_are_tokenised_as_t5s_own_sentencepiece_does(fid, shared_data):
    """Real text, cut where FiD cuts it; white space at its end is no token, though tokenizer.json has one for it."""
    files = shared_data / "t5_tokenizer"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(files / "spiece.model"))
    config = read_checkpoint(fid[2] / "ckpt").config
    shape = config.model_copy(update={"passage_length": 60, "vocab_size": 32128}).shape
    text = TextEncoder.open(files / "tokenizer.json", shape)
    rows = [json.loads(line) for line in (shared_data / "qa" / "corpus.jsonl").read_text("utf-8").splitlines()[::50]]
    cut = 0
    for row in rows:
        question, passage = f"what does {row['title']} say?", row["text"][:300] + " "
        expected = pieces.encode(fid_texts(question, [(row["title"], passage)])[0])
        assert text.joined(question, row["title"], passage) == (expected[:60], len(expected) > 60)
        cut += len(expected) > 60
    assert 0 < cut < len(rows)


# Mutations.

LAYER = "live_encoder.block.{}.layer.0.SelfAttention.{}.weight"


def states_of(theirs, folder: Path, mutate=None):
    model = model_from_checkpoint(read_checkpoint(folder / "ckpt"))
    weights = dict(model.state_dict())
    if mutate:
        model.load_state_dict(weights | mutate(weights))
    ids = torch.randint(2, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    expected = theirs(input_ids=ids, decoder_input_ids=ids[:, :4])
    mask = torch.ones_like(ids)
    states = model.encode_joined(ids[:, None].int(), mask[:, None].int()).squeeze(1)
    assert_close(states, expected.encoder_last_hidden_state, "t5_encoder_states")
    assert_close(model.decode(ids[:, :4].int(), states, mask.int()), expected.logits, "t5_logits")


@pytest.mark.parametrize("projection", ["q", "k", "v", "o"])
@pytest.mark.parametrize("mistake", ["transpose", "layer"])
def test_a_wrong_transpose_or_layer_is_seen(fid, projection, mistake):
    name, other = LAYER.format(1, projection), LAYER.format(2, projection)

    def mutate(weights):
        return {name: weights[name].T.contiguous() if mistake == "transpose" else weights[other].clone()}

    states_of(fid[0], fid[2])
    with pytest.raises(AssertionError, match=TOLERANCES["t5_encoder_states"].reason):
        states_of(fid[0], fid[2], mutate)


def test_a_bundle_of_an_early_fid_says_that_it_is_converted_again(fid, tmp_path):
    """It has EOS behind its passages and no table of the cross-attention, which no field says."""
    bundle = Path(shutil.copytree(fid[2] / "bundle", tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in ("question_eos", "passage_eos", "cross_attention_bias"):
        del manifest["model"][name]
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 4}))
    with pytest.raises(BundleError, match="convert the FiD again with `glimmer-export convert --from fid`"):
        Session.open(bundle)


def test_a_table_belongs_to_texts_that_are_joined(fid, tmp_path):
    bundle = Path(shutil.copytree(fid[2] / "bundle", tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["model"] |= {"question_layout": "block", "input_template": None}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cross_attention_bias: expected false if the question is not joined"):
        Session.open(bundle)


def test_the_fields_are_in_the_digests_and_their_defaults_are_not(fid, tmp_path):
    """A store of before is one of a checkpoint whose passages end in EOS."""
    checkpoint = read_checkpoint(fid[2] / "ckpt")
    eos = replace(checkpoint, config=checkpoint.config.model_copy(update={"passage_eos": True}))
    assert memory_digest(eos) != memory_digest(checkpoint)
    assert checkpoint_digest(eos) != checkpoint_digest(checkpoint)
    fields = {name: getattr(eos.config, name) for name in ("passage_length", "passage_template", "eos_token_id")}
    assert memory_digest(eos) == hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# What can be wrong.


@pytest.fixture
def source(tmp_path):
    return save_fid(make_reader(seed=3), tmp_path / "fid")


def change(source: Path, edit) -> None:
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    edit(weights)
    torch.save(weights, source / "pytorch_model.bin")


def refuse(source: Path, match: str, error=CheckpointError, fields: dict[str, object] | None = None, **options) -> None:
    config = source.parent / "fields.json"
    config.write_text(json.dumps(fields or {}))
    before = sorted(source.parent.iterdir())
    with pytest.raises(error, match=match):
        convert_checkpoint("fid", source, source.parent / "ckpt", config=config, **options)
    assert sorted(source.parent.iterdir()) == before


QUERY = "encoder.encoder.block.1.module.layer.0.SelfAttention.q.weight"


def test_an_encoder_twice(source):
    change(source, lambda weights: weights.update({"encoder.final_layer_norm.weight": torch.linspace(1, 2, 32)}))
    refuse(source, "expected one tensor encoder.final_layer_norm.weight, found encoder.encoder.final_layer_norm.weight")


def test_a_missing_tensor(source):
    change(source, lambda weights: weights.pop(QUERY))
    refuse(source, "expected a tensor encoder.block.1.layer.0.SelfAttention.q.weight .* found none")


def test_an_unexpected_tensor(source):
    change(source, lambda weights: weights.update({"encoder.encoder.adapter": torch.linspace(1, 2, 3)}))
    refuse(source, "found 1 more, the first encoder.adapter")


def test_a_wrong_shape(source):
    change(source, lambda weights: weights.update({QUERY: weights[QUERY][:, :31]}))
    refuse(source, r"expected shape \[32, 32\], found \[32, 31\]")


def test_not_finite(source):
    change(source, lambda weights: weights[QUERY].view(-1)[5].fill_(torch.nan))
    refuse(source, "expected finite numbers, found NaN or infinity")


@pytest.mark.parametrize("length", [0, 7, -100])
def test_a_truncated_file(source, length):
    path = source / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:length])
    refuse(source, "pytorch_model.bin: expected a whole file of tensors")


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_that_runs_code(source, monkeypatch):
    monkeypatch.chdir(source)
    change(source, lambda weights: weights.update({"x": Attack()}))
    refuse(source, r"found a pickle that calls \w+\.system")
    assert not (source / "executed").exists()


def test_no_weights(source):
    (source / "pytorch_model.bin").unlink()
    refuse(source, "expected one of .*pytorch_model.bin, pytorch_model.bin.index.json, found none of them")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"input_template": None}, "question_layout joined and input_template go together"),
        ({"question_layout": "block"}, "question_layout joined and input_template go together"),
        ({"input_template": "{body}"}, "input_template '{body}' may hold only the plain fields {question}, {text}"),
        ({"architecture": "glimmer"}, "expected the architecture fid, found 'glimmer'"),
        ({"passage_length": "long"}, "passage_length: Input should be a valid integer"),
        ({"d_model": 64}, r"expected shape \[\d+, 64\]"),
        ({"text_maxlength": 200}, "text_maxlength: Extra inputs are not permitted"),
    ],
)
def test_fields_that_do_not_fit(source, fields, match):
    refuse(source, match, fields=fields)


def test_options_of_another_layout(source, tmp_path):
    refuse(source, "options --map and --allow-unused: expected --from t5x, found fid", OptionError, allow_unused=["x"])


@pytest.mark.parametrize("content", ["", "[]", "\xff", "{"])
def test_a_damaged_config(source, content):
    config = source.parent / "fields.json"
    config.write_text(content, encoding="latin-1")
    with pytest.raises(OptionError, match="expected a JSON object of a checkpoint's fields"):
        convert_checkpoint("fid", source, source.parent / "ckpt", config=config)
