"""A checkpoint opened by transformers answers as the reference does, and what transformers saves is a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

import glimmer_export.exporter.huggingface
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.contract import CheckpointError
from glimmer_export.runtime.passage_memory import pad_ids
from tests.bundle_factory import VOCABULARY
from tests.exported import FAST, SLOW, make_checkpoint

NUM_PASSAGES = 4


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Callable[[str], Path]:
    """A variant's directory by name, written when first asked for."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def get(variant: str) -> Path:
        if variant not in made:
            made[variant] = make_checkpoint(folder / str(len(made)), variant)
        return made[variant]

    return get


@pytest.fixture
def rows() -> tuple[list[list[int]], list[list[list[int]]]]:
    """Two questions of different lengths and their passages, EOS (1) last."""
    random = np.random.default_rng(3)

    def tokens(most: int) -> list[int]:
        return [*random.integers(3, 60, random.integers(2, most)).tolist(), 1]

    return [tokens(5), tokens(11)], [[tokens(23) for _ in range(NUM_PASSAGES)] for _ in range(2)]


def inputs_of(questions, passages) -> dict[str, torch.Tensor]:
    ids, mask = pad_ids(questions)
    flat_ids, flat_mask = pad_ids([tokens for row in passages for tokens in row])
    shape = (len(questions), NUM_PASSAGES, -1)
    return {
        "input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask),
        "passage_input_ids": torch.from_numpy(flat_ids).long().reshape(shape),
        "passage_attention_mask": torch.from_numpy(flat_mask).reshape(shape),
    }  # fmt: skip


def references(model, questions, passages):
    reference = TorchReference(model.eval())
    has_memory = model.config.shape.traits.has_memory
    return [
        reference.answer(
            question, row, reference.memory(row) if has_memory else None, model.config.num_selected
        )
        for question, row in zip(questions, passages, strict=True)
    ]


@pytest.mark.parametrize("variant", FAST)
def test_generate_answers_as_the_reference(checkpoints, variant, rows):
    reference = model_from_checkpoint(read_checkpoint(checkpoints(variant)))
    model = AutoModel.from_pretrained(checkpoints(variant))
    assert isinstance(model, glimmer_export.exporter.huggingface.GlimmerForConditionalGeneration)
    questions, passages = rows
    inputs = inputs_of(questions, passages)
    generated = model.generate(**inputs, do_sample=False).tolist()
    expected = references(reference, questions, passages)
    config = reference.config
    for row, answer in zip(generated, expected, strict=True):
        assert row[0] == config.decoder_start_token_id
        tokens = row[1:]
        end = tokens.index(config.eos_token_id) if config.eos_token_id in tokens else len(tokens)
        assert tokens[:end] == answer.tokens
    if config.num_selected is not None:
        with torch.no_grad():
            encoded = model.get_encoder()(**inputs)
        assert encoded.selected.tolist() == [answer.selected for answer in expected]
        scores = np.array([answer.scores for answer in expected])
        assert max_abs_error(encoded.scores.numpy(), scores) <= TOLERANCES["fp32"].limit(scores)


def test_a_joined_text_is_read_as_it_stands(tmp_path, rows):
    """The encoder's states are those of our model over the passages' ids alone; the question's are not read."""
    directory = make_checkpoint(
        tmp_path / "joined", "fid", question_layout="joined", input_template="question: {question} context: {text}"
    )
    model, (questions, passages) = AutoModel.from_pretrained(directory), rows
    inputs = inputs_of(questions, passages)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs)
        states = model_from_checkpoint(read_checkpoint(directory)).encode_joined(
            inputs["passage_input_ids"], inputs["passage_attention_mask"]
        )
    assert torch.equal(encoded.last_hidden_state, states.flatten(1, 2))
    assert torch.equal(encoded.attention_mask, inputs["passage_attention_mask"].flatten(1))


def test_keys_stand_where_fid_pads_them_to(tmp_path):
    """FiD's cross-attention goes by a key's place among passages padded to passage_length, whatever these are."""
    assert SLOW["fid, its own code"]["cross_attention_bias"]
    directory = make_checkpoint(tmp_path / "fid", "fid, its own code", max_new_tokens=12)
    reference, model = model_from_checkpoint(read_checkpoint(directory)), AutoModel.from_pretrained(directory)
    random = np.random.default_rng(4)
    passages = [[random.integers(3, 60, 3).tolist() for _ in range(NUM_PASSAGES)] for _ in range(6)]
    questions = [[5]] * len(passages)
    generated = model.generate(**inputs_of(questions, passages), do_sample=False).tolist()
    for row, answer in zip(generated, references(reference, questions, passages), strict=True):
        end = row.index(reference.config.eos_token_id) if reference.config.eos_token_id in row else len(row)
        assert row[1:end] == answer.tokens


@pytest.mark.parametrize("variant", ["glimmer, every option", "lumen", "fid"])
def test_beams_are_the_models_own(checkpoints, variant, rows):
    """The best of four beams is at least as likely as the greedy answer."""
    model = AutoModel.from_pretrained(checkpoints(variant))
    inputs = inputs_of(*rows)

    @torch.no_grad()
    def log_likelihood(tokens: torch.Tensor) -> float:
        logits = model(**{name: values[:1] for name, values in inputs.items()}, decoder_input_ids=tokens[None, :-1])
        steps = logits.logits[0].log_softmax(-1)
        return float(steps.gather(1, tokens[1:, None]).sum())

    options = {"do_sample": False, "min_new_tokens": 4, "max_new_tokens": 4, "length_penalty": 0.0}
    greedy = model.generate(**inputs, **options)[0]
    beam = model.generate(**inputs, **options, num_beams=4)[0]
    assert log_likelihood(beam) >= log_likelihood(greedy) - TOLERANCES["fp32"].limit(np.array([log_likelihood(greedy)]))


@pytest.mark.parametrize("variant", FAST)
def test_what_is_saved_is_a_checkpoint_again(checkpoints, variant, tmp_path):
    source = read_checkpoint(checkpoints(variant))
    AutoModel.from_pretrained(source.directory).save_pretrained(tmp_path / "saved")
    saved = read_checkpoint(tmp_path / "saved")
    assert saved.config == source.config
    assert set(saved.tensors) == set(source.tensors)
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in source.tensors.items())
    assert AutoConfig.from_pretrained(tmp_path / "saved").checkpoint_config == source.config


def test_a_checkpoints_tokenizer_is_found(checkpoints):
    tokenizer = AutoTokenizer.from_pretrained(checkpoints("glimmer"))
    assert tokenizer("w0 w7").input_ids == [VOCABULARY["w0"], VOCABULARY["w7"]]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == 24


@pytest.mark.parametrize("variant", ["glimmer", "memory_fid", "fid"])
@pytest.mark.parametrize("files", ["with both files", "as earlier checkpoints are"])
def test_generate_takes_what_the_tokenizer_gives(checkpoints, tmp_path, variant, files):
    """Padded questions and passages, as they come; the answers are those of each question alone, without padding."""
    directory = checkpoints(variant)
    if files != "with both files":
        directory = Path(shutil.copytree(directory, tmp_path / "earlier"))
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            (directory / name).unlink()
    model, tokenizer = AutoModel.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    tokenizer.pad_token = tokenizer.pad_token or "<pad>"
    questions = ["w3 w4 w5", "w9"]
    passages = [["w1 w2", "w7 w8 w9 w20", "w30", "w41 w42"], ["w5", "w6 w7", "w8 w9 w10 w11 w12", "w13 w2"]]
    tokens = tokenizer(questions, padding=True, return_tensors="pt")
    read = tokenizer([text for row in passages for text in row], padding=True, return_tensors="pt")
    assert not tokens.attention_mask.all()
    read = {f"passage_{name}": read[name].unflatten(0, (2, 4)) for name in ("input_ids", "attention_mask")}
    found = model.generate(**tokens, **read, do_sample=False)
    for place, question in enumerate(questions):
        ids = inputs_of([tokenizer(question).input_ids], [tokenizer(passages[place]).input_ids])
        alone = model.generate(**ids, do_sample=False)[0]
        assert torch.equal(found[place][: len(alone)], alone)
        assert (found[place][len(alone) :] == 0).all()


def test_the_tokenizers_files_say_what_pads_and_what_ends(checkpoints):
    directory = checkpoints("glimmer")
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert json.loads((directory / "special_tokens_map.json").read_text("utf-8")) == special
    settings = json.loads((directory / "tokenizer_config.json").read_text("utf-8"))
    assert special.items() <= settings.items()
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


def test_a_token_that_the_tokenizer_lacks_is_left_out(tmp_path):
    """The model's own config has an id for padding; this tokenizer has no token of that id."""
    fields = {"vocab_size": len(VOCABULARY) + 1, "pad_token_id": len(VOCABULARY)}
    directory = make_checkpoint(tmp_path / "checkpoint", "glimmer", **fields)
    special = json.loads((directory / "special_tokens_map.json").read_text("utf-8"))
    assert special == {"eos_token": "</s>", "unk_token": "<unk>"}


def test_what_the_tokenizer_saves_is_a_checkpoints_again(checkpoints, tmp_path):
    """Whatever it was last asked to cut and to pad, which it keeps in tokenizer.json."""
    directory = Path(shutil.copytree(checkpoints("glimmer"), tmp_path / "saved"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer(["w3 w4", "w5"], padding=True, truncation=True, max_length=1)
    tokenizer.save_pretrained(directory)
    assert read_checkpoint(directory).tokenizer == directory / "tokenizer.json"
    assert AutoTokenizer.from_pretrained(directory)("w3 w4").input_ids == [VOCABULARY["w3"], VOCABULARY["w4"]]


def test_a_wrong_config_is_named(tmp_path):
    directory = make_checkpoint(tmp_path / "checkpoint", "glimmer")
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps({**config, "num_selected": 99}), "utf-8")
    with pytest.raises(CheckpointError, match="num_selected 99 is more than num_retrieved"):
        AutoModel.from_pretrained(directory)


@pytest.mark.parametrize(("missing", "message"), [
    ("passage_input_ids", "passage_input_ids"), ("input_ids", "input_ids"), ("decoder_input_ids", "decoder_input_ids"),
])  # fmt: skip
def test_a_missing_input_is_named(checkpoints, rows, missing, message):
    model = AutoModel.from_pretrained(checkpoints("glimmer"))
    inputs = {**inputs_of(*rows), "decoder_input_ids": torch.tensor([[0], [0]])}
    del inputs[missing]
    with pytest.raises(ValueError, match=message):
        model(**inputs)
