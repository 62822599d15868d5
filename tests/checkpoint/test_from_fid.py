"""A trained FiD becomes a LUMEN, GLIMMER or MemoryFiD: its layers, its words, its EOS, and a note of what is lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.checkpoint import ModelOptions, read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_fid
from glimmer_export.exporter.checkpoint.split_template import split_template
from glimmer_export.runtime.contract import CheckpointError, OptionError
from tests.exported import make_checkpoint
from tests.fid_factory import TABLE, give_table, make_reader, save_fid, word_tokenizer
from tests.t5_factory import save_t5

GLIMMER = ModelOptions("glimmer", Fraction(2, 3), Fraction(1, 2))
"""Of three encoder layers, as the reader has: one of memory, one of stage A, one of stage B."""
OPTIONS = {
    "glimmer": GLIMMER,
    "glimmer, separate reranker": ModelOptions(
        "glimmer", Fraction(2, 3), Fraction(1, 2), separate_reranker="t5", separate_question_encoder=True
    ),
    "lumen": ModelOptions("lumen", Fraction(1, 3), memory_final_norm=True),
    "memory_fid": ModelOptions("memory_fid"),
}
MEMORY_LAYERS = {"glimmer": 1, "lumen": 2, "memory_fid": 3}


def fid_directory(folder: Path, *, table: bool = False) -> tuple[Path, dict[str, torch.Tensor]]:
    """FiD as facebookresearch's code saves it, and its weights by T5's names."""
    model = make_reader("v1.1", seed=4)
    if table:
        give_table(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    directory = save_fid(model, folder / "fid")
    (directory / "tokenizer.json").write_text(word_tokenizer().to_str(), encoding="utf-8")
    return directory, weights


def layer_of_the_fid(name: str, num_memory: int) -> str:
    """Where the FiD has what we call `name`: memory first, then the live layers, one table of positions for all."""
    part, _, rest = name.partition(".")
    if part not in ("memory_encoder", "question_encoder", "live_encoder", "reranker"):
        return name
    if rest == "final_layer_norm.weight" or "relative_attention_bias" in rest:
        return f"encoder.{rest}"
    _, number, below = rest.split(".", 2)
    first = num_memory if part in ("live_encoder", "reranker") else 0
    return f"encoder.block.{int(number) + first}.{below}"


@pytest.mark.parametrize("name", OPTIONS)
def test_every_part_has_the_fids_layers(tmp_path, name):
    directory, theirs = fid_directory(tmp_path)
    summary = init_from_fid(directory, tmp_path / "ckpt", OPTIONS[name], seed=3)
    checkpoint = read_checkpoint(tmp_path / "ckpt")
    config = checkpoint.config
    assert summary["layers"]["memory"] == MEMORY_LAYERS[config.architecture]
    assert (config.num_memory_layers + config.num_live_layers, config.separate_reranker) == (3, "reranker" in name)
    ours = {tensor for tensor in checkpoint.tensors if not tensor.startswith("score.")}
    for tensor in ours:
        expected = theirs[layer_of_the_fid(tensor, config.num_memory_layers)]
        assert torch.equal(checkpoint.tensors[tensor], expected), tensor
    live = {layer_of_the_fid(tensor, config.num_memory_layers) for tensor in ours}
    assert live == set(theirs) - {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert (len(ours) < len(checkpoint.tensors)) == config.shape.traits.selects


def test_its_words_its_eos_and_its_lengths_are_kept(tmp_path):
    directory, _ = fid_directory(tmp_path)
    summary = init_from_fid(directory, tmp_path / "ckpt", GLIMMER)
    config = read_checkpoint(tmp_path / "ckpt").config
    assert config.question_template == "question: {question}"
    assert config.passage_template == "title: {title} context: {text}"
    assert (config.question_layout, config.input_template) == ("block", None)
    assert (config.question_eos, config.passage_eos) == (False, False)
    assert (config.question_length, config.passage_length, config.max_new_tokens) == (48, 250, 49)
    assert '"post_processor": null' in (tmp_path / "ckpt" / "tokenizer.json").read_text("utf-8")
    assert "the FiD reads 100 passages, this reads 25: --top-k sets another" in summary["notes"]


def test_options_replace_what_is_kept(tmp_path):
    directory, _ = fid_directory(tmp_path)
    options = ModelOptions(
        "lumen", Fraction(1, 3), question_length=9, passage_length=30, max_new_tokens=7, num_retrieved=100,
        question_template="{question}", passage_template="{text}",
    )
    summary = init_from_fid(directory, tmp_path / "ckpt", options)
    config = read_checkpoint(tmp_path / "ckpt").config
    assert (config.question_length, config.passage_length, config.max_new_tokens) == (9, 30, 7)
    assert (config.question_template, config.passage_template) == ("{question}", "{text}")
    assert not [note for note in summary["notes"] if "--top-k" in note]


def test_a_checkpoint_of_ours_gives_the_same(tmp_path):
    directory, _ = fid_directory(tmp_path)
    convert_checkpoint("fid", directory, tmp_path / "converted")
    init_from_fid(directory, tmp_path / "from theirs", GLIMMER, seed=3)
    init_from_fid(tmp_path / "converted", tmp_path / "from ours", GLIMMER, seed=3)
    files = sorted(path.name for path in (tmp_path / "from ours").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "from theirs").iterdir())
    theirs, ours = (read_checkpoint(tmp_path / folder) for folder in ("from theirs", "from ours"))
    assert ours.config == theirs.config
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())


def test_a_fid_with_the_question_in_a_block_keeps_both_templates(tmp_path):
    source = make_checkpoint(tmp_path / "fid", "fid", question_template="ask {question}", question_eos=False)
    init_from_fid(source, tmp_path / "ckpt", ModelOptions("lumen", Fraction(1, 2)))
    config, theirs = read_checkpoint(tmp_path / "ckpt").config, read_checkpoint(source).config
    for name in ("question_template", "passage_template", "question_length", "passage_length", "question_eos",
                 "passage_eos", "max_new_tokens"):  # fmt: skip
        assert getattr(config, name) == getattr(theirs, name)


def test_a_hugging_face_fid_is_read_as_convert_reads_it(tmp_path):
    model = make_reader("v1.1", seed=4)
    source = save_t5(model, tmp_path / "fid")
    summary = init_from_fid(source, tmp_path / "ckpt", GLIMMER)
    assert read_checkpoint(tmp_path / "ckpt").config.passage_length == 512
    assert any("FastRAG" in note for note in summary["notes"])


def test_a_table_of_the_cross_attention_is_left_out_and_said(tmp_path):
    directory, _ = fid_directory(tmp_path, table=True)
    summary = init_from_fid(directory, tmp_path / "ckpt", GLIMMER)
    checkpoint = read_checkpoint(tmp_path / "ckpt")
    assert TABLE not in checkpoint.tensors
    assert not checkpoint.config.cross_attention_bias
    assert any(note.startswith(f"left out {TABLE}: it tells places") for note in summary["notes"])


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("question: {question} title: {title} context: {text}",
         ("question: {question}", "title: {title} context: {text}")),
        ("question: {question} answer: <extra_id_0> title: {title} context: {text}",
         ("question: {question} answer: <extra_id_0>", "title: {title} context: {text}")),
        ("question: {question} context: {text}", ("question: {question}", "context: {text}")),
        ("{question} {title} {text}", ("{question}", "{title} {text}")),
        ("{question}? {text}", ("{question}?", "{text}")),
        ("{question}\n\nPassage text: {text} Answer:", ("{question}", "Passage text: {text} Answer:")),
        ("{question}{text}", ("{question}", "{text}")),
    ],
)  # fmt: skip
def test_templates_are_split_in_front_of_the_passages_label(template, parts):
    assert split_template(template, subject="FiD") == parts


WORDS = st.lists(st.sampled_from(["question:", "title:", "context", "<extra_id_0>", "answer:", "the"]), max_size=3)


@given(WORDS, WORDS, WORDS)
def test_what_is_split_joins_again(before, between, after):
    template = " ".join([*before, "{question}", *between, "{text}", *after])
    question, passage = split_template(template, subject="FiD")
    assert f"{question} {passage}" == template
    assert ("{question}" in question, "{text}" in passage) == (True, True)


@pytest.mark.parametrize("template", ["context: {text} question: {question}", "{text}", "{question}|{text}",
                                      "{question} {text} {question}"])  # fmt: skip
def test_a_template_that_cannot_be_split_says_what_to_pass(tmp_path, template):
    source = make_checkpoint(tmp_path / "fid", "fid", question_layout="joined", input_template=template)
    with pytest.raises(OptionError, match=r"input_template: expected .*--question-template 'question: "):
        init_from_fid(source, tmp_path / "ckpt", ModelOptions("lumen", Fraction(1, 2)))
    options = ModelOptions("lumen", Fraction(1, 2), question_template="{question}", passage_template="{text}")
    init_from_fid(source, tmp_path / "ckpt", options)
    assert read_checkpoint(tmp_path / "ckpt").config.passage_template == "{text}"


@pytest.mark.parametrize("variant", ["glimmer", "lumen"])
def test_another_checkpoint_is_no_fid(tmp_path, variant):
    source = make_checkpoint(tmp_path / "source", variant)
    with pytest.raises(CheckpointError, match=f"a checkpoint of the architecture fid, found one of {variant}"):
        init_from_fid(source, tmp_path / "ckpt", GLIMMER)


def test_a_fid_of_a_fid_is_converted_and_not_partitioned(tmp_path):
    with pytest.raises(OptionError, match=r"found fid; `glimmer-export convert --from fid`"):
        init_from_fid(tmp_path / "fid", tmp_path / "ckpt", ModelOptions("fid"))
