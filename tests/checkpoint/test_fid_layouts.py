"""FiD readers of other hands: as Hugging Face T5s, as Atlas saves them, with names that training wrapped."""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration

import glimmer_export.exporter.huggingface  # noqa: F401 - registers the checkpoint with transformers
from glimmer_export.exporter.checkpoint import Checkpoint, ModelOptions, read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5
from glimmer_export.runtime.contract import CheckpointError
from glimmer_export.runtime.text import TextEncoder
from tests.fid_factory import TABLE, give_table, make_reader, save_fid, word_tokenizer
from tests.t5_factory import STORAGE, VARIANTS, make_t5, save_t5

PICKLE = "pytorch_model.bin"


def convert(source: Path, layout: str = "fid", **fields: object) -> tuple[Checkpoint, list[str]]:
    """The checkpoint that `source` becomes, and what was noted."""
    config = source.parent / "fields.json"
    config.write_text(json.dumps(fields))
    summary = convert_checkpoint(layout, source, source.parent / "ckpt", config=config, overwrite=True)
    return read_checkpoint(source.parent / "ckpt"), summary["notes"]


def refuse(source: Path, match: str, layout: str = "fid", **fields: object) -> None:
    config = source.parent / "fields.json"
    config.write_text(json.dumps(fields))
    before = sorted(source.parent.iterdir())
    with pytest.raises(CheckpointError, match=match):
        convert_checkpoint(layout, source, source.parent / "ckpt", config=config)
    assert sorted(source.parent.iterdir()) == before


def change(path: Path, edit: Callable[[Any], object]) -> None:
    """Edit what a JSON file or a pickle holds."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        edit(content)
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        content = torch.load(path, weights_only=False)
        edit(content)
        torch.save(content, path)


def is_model(checkpoint: Checkpoint, theirs: T5ForConditionalGeneration) -> None:
    """Every tensor is the T5's, under our prefix for the encoder."""
    state = theirs.state_dict()
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(tensor, state[name.replace("live_encoder.", "encoder.")]), name


# The cross-attention's table.


def test_fids_table_is_carried(tmp_path: Path) -> None:
    theirs = give_table(make_reader(seed=1))
    checkpoint, notes = convert(save_fid(copy.deepcopy(theirs), tmp_path / "fid"))
    assert checkpoint.config.cross_attention_bias
    assert TABLE in checkpoint.tensors
    assert not any(TABLE in note for note in notes)
    is_model(checkpoint, theirs)


@pytest.mark.parametrize("value", [0.0, -3.25])
def test_a_table_that_is_constant_for_each_head_is_left_out_and_said(tmp_path: Path, value: float) -> None:
    theirs = give_table(make_reader(seed=1))
    theirs.decoder.block[0].layer[1].EncDecAttention.relative_attention_bias.weight[:] = value * torch.arange(4.0)
    checkpoint, notes = convert(save_fid(theirs, tmp_path / "fid"))
    assert not checkpoint.config.cross_attention_bias
    assert [note for note in notes if TABLE in note] == [
        f"left out {TABLE}: it is constant for each head, which changes no attention"
    ]


def test_a_table_with_one_value_more_is_carried(tmp_path: Path) -> None:
    theirs = give_table(make_reader(seed=1), scale=0.0)
    theirs.decoder.block[0].layer[1].EncDecAttention.relative_attention_bias.weight[31, 3] = 1e-3
    assert convert(save_fid(theirs, tmp_path / "fid"))[0].config.cross_attention_bias


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_table_that_is_not_finite(tmp_path: Path, value: float) -> None:
    theirs = give_table(make_reader(seed=1))
    theirs.decoder.block[0].layer[1].EncDecAttention.relative_attention_bias.weight[:] = value
    refuse(save_fid(theirs, tmp_path / "fid"), "relative_attention_bias.weight: expected finite numbers")


def test_a_table_of_another_shape(tmp_path: Path) -> None:
    source = save_fid(give_table(make_reader(seed=1)), tmp_path / "fid")
    change(source / PICKLE, lambda weights: weights.update({TABLE: torch.randn(32, 5)}))
    refuse(source, r"relative_attention_bias.weight: expected shape \[32, 4\], found \[32, 5\]")


@pytest.mark.parametrize("layout", ["huggingface", "fid"])
def test_hugging_faces_own_t5_leaves_the_table_out_and_says_so(tmp_path: Path, layout: str) -> None:
    """transformers has not read it since 4.0; that it was read before can be said."""
    theirs = give_table(make_t5("v1.0", seed=2))
    source = save_t5(theirs, tmp_path / "t5", "pickle")
    checkpoint, notes = convert(source, layout)
    assert TABLE not in checkpoint.tensors
    assert any(TABLE in note and "cross_attention_bias" in note for note in notes)
    carried, notes = convert(source, layout, cross_attention_bias=True)
    assert not any(TABLE in note for note in notes)
    is_model(carried, theirs)


def test_a_partitioned_t5_says_what_it_leaves_out(tmp_path: Path) -> None:
    source = save_t5(give_table(make_t5("v1.0", seed=2)), tmp_path / "t5", "pickle")
    summary = init_from_t5(source, tmp_path / "ckpt", ModelOptions("lumen"))
    assert any(TABLE in note for note in summary["notes"])


def test_a_table_that_the_file_lacks(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.0", seed=2), tmp_path / "t5")
    refuse(source, f"expected a tensor {TABLE} .* found none", "huggingface", cross_attention_bias=True)


# EOS.


def test_the_release_that_wrote_the_config_is_named(tmp_path: Path) -> None:
    source = save_fid(give_table(make_reader(seed=1)), tmp_path / "fid")
    change(source / "config.json", lambda config: config.update(transformers_version="4.20.1"))
    checkpoint, notes = convert(source)
    assert not checkpoint.config.passage_eos
    assert any("transformers 4.20.1" in note and "passage_eos" in note for note in notes)
    change(source / "config.json", lambda config: config.pop("transformers_version"))
    assert convert(source)[1] == []
    assert convert(source, passage_eos=True)[0].config.passage_eos


def test_transformers_reads_the_tokenizer_without_eos(tmp_path: Path) -> None:
    """Beside a model whose texts have none; elsewhere EOS ends a text."""
    for layout, source in (
        ("fid", save_fid(make_reader(seed=1), tmp_path / "fid")),
        ("huggingface", save_t5(make_reader(seed=1), tmp_path / "t5")),
    ):
        word_tokenizer().save(str(source / "tokenizer.json"))
        convert(source, layout)
        ids = AutoTokenizer.from_pretrained(tmp_path / "ckpt")("w0 w1").input_ids
        assert (ids[-1] == 1) == (layout == "huggingface")
        assert len(ids) == (3 if layout == "huggingface" else 2)
    convert(source, "huggingface", passage_eos=False)
    assert AutoTokenizer.from_pretrained(tmp_path / "ckpt")("w0 w1").input_ids[-1] != 1


def test_a_tokenizer_that_names_no_added_tokens(tmp_path: Path) -> None:
    """The key may be left out of the file, as in one that is made by hand."""
    source = save_t5(make_reader(seed=1), tmp_path / "t5")
    tokenizer = json.loads(word_tokenizer().to_str())
    del tokenizer["added_tokens"]
    (source / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    convert(source, "huggingface")
    special = json.loads((tmp_path / "ckpt" / "special_tokens_map.json").read_text(encoding="utf-8"))
    assert special == {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


# Hugging Face's FiD readers.


@pytest.mark.parametrize("storage", STORAGE)
def test_fastrags_readers(tmp_path: Path, storage: str) -> None:
    theirs = make_t5("v1.1", seed=3)
    source = save_t5(theirs, tmp_path / "fid_flan_t5_base_nq", storage)
    (source / "tokenizer_config.json").write_text('{"model_max_length": 384}')
    named = ["FusionInDecoderForConditionalGeneration"]
    change(source / "config.json", lambda config: config.update(architectures=named))
    checkpoint, notes = convert(source)
    config = checkpoint.config
    assert (config.question_eos, config.passage_eos, config.cross_attention_bias) == (False, False, False)
    assert config.input_template == "question: {question} title: {title} context: {text}"
    assert (config.passage_length, config.question_length, config.num_retrieved) == (384, 384, 100)
    assert "FastRAG" in notes[0]
    is_model(checkpoint, theirs)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_max_length": 1e30}', '{"model_max_length": 0}'])
def test_a_tokenizers_config_without_a_limit(tmp_path: Path, content: str) -> None:
    source = save_t5(make_t5("v1.1", seed=3), tmp_path / "t5")
    (source / "tokenizer_config.json").write_text(content)
    assert convert(source)[0].config.passage_length == 512


@pytest.mark.parametrize("name", ["FusionInDecoderForConditionalGeneration", "FiDforConditionalGeneration", "FiDT5"])
def test_a_fid_is_no_t5_of_one_passage(tmp_path: Path, name: str) -> None:
    source = save_t5(make_t5("v1.1", seed=3), tmp_path / "t5")
    change(source / "config.json", lambda config: config.update(architectures=[name]))
    refuse(source, f"expected a T5's class in architectures, found {name}; convert it with --from fid", "huggingface")


def test_beams_of_a_fids_generation_config(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1", seed=3), tmp_path / "t5")
    (source / "generation_config.json").write_text('{"num_beams": 4}')
    refuse(source, "expected greedy decoding")


# Wrapped names, and what stands beside weights.

PREFIXES = ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.module.",
            "_fsdp_wrapped_module."]  # fmt: skip


def rename(path: Path, new: Callable[[str], str]) -> None:
    change(path, lambda weights: [weights.update({new(name): weights.pop(name)}) for name in list(weights)])


@pytest.mark.parametrize("layout", ["fid", "huggingface"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrapped_names(tmp_path: Path, prefix: str, layout: str) -> None:
    theirs = make_reader(seed=4)
    if layout == "fid":
        source = save_fid(give_table(copy.deepcopy(theirs)), tmp_path / "fid")
        give_table(theirs)
    else:
        source = save_t5(theirs, tmp_path / "t5", "pickle")
    rename(source / PICKLE, lambda name: prefix + name)
    checkpoint, _ = convert(source, layout)
    is_model(checkpoint, theirs)
    assert checkpoint.config.cross_attention_bias == (layout == "fid")


def test_a_compiled_part(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=4)
    source = save_t5(theirs, tmp_path / "t5", "pickle")
    rename(source / PICKLE, lambda name: name.replace("encoder.block.1.", "encoder.block.1._orig_mod."))
    is_model(convert(source, "huggingface")[0], theirs)


@pytest.mark.parametrize("layout", ["fid", "huggingface"])
def test_a_tensor_with_and_without_a_wrapper(tmp_path: Path, layout: str) -> None:
    source = save_t5(make_t5("v1.1", seed=4), tmp_path / "t5", "pickle")
    change(source / PICKLE, lambda weights: weights.update({"module.shared.weight": weights["shared.weight"] + 1}))
    refuse(source, "expected one tensor shared.weight, found shared.weight and module.shared.weight", layout)


@pytest.mark.parametrize("layout", ["fid", "huggingface"])
@pytest.mark.parametrize("storage", ["safetensors", "pickle"])
def test_an_adapter_beside_the_weights(tmp_path: Path, storage: str, layout: str) -> None:
    source = save_t5(make_t5("v1.1", seed=4), tmp_path / "t5", storage)
    (source / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refuse(source, "found adapter_config.json, an adapter that is not merged .* merge_and_unload", layout)
    with pytest.raises(CheckpointError, match=r"found adapter_config\.json"):
        init_from_t5(source, tmp_path / "ckpt", ModelOptions("fid"))


# Atlas.

OPTIONS: dict[str, object] = {
    "task": "qa", "qa_prompt_format": "question: {question} answer: <extra_id_0>", "text_maxlength": 384,
    "encoder_format": "{query} title: {title} context: {text}", "n_context": 40, "generation_max_length": 16,
    "generation_num_beams": 1, "generation_min_length": None, "decoder_prompt_format": None,
    "reader_model_type": "google/t5-base-lm-adapt", "precision": "bf16", "lr": 4e-5, "passages": ["a.jsonl"],
}


def save_atlas(
    directory: Path, theirs: T5ForConditionalGeneration, *, prefix: str = "reader.", **options: object
) -> Path:
    """What Atlas's save_atlas_model writes."""
    directory.mkdir()
    model = {f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items()}
    model |= {f"retriever.contriever.{name}": torch.ones(3) for name in ("embeddings.word", "pooler")}
    state = torch.optim.AdamW(theirs.parameters()).state_dict()
    content = {
        "step": 30, "model": model, "optimizer": state, "retr_optimizer": None, "scheduler": {"base_lrs": [4e-5]},
        "retr_scheduler": None, "opt": argparse.Namespace(**{**OPTIONS, **options}),
    }
    torch.save(content, directory / "model.pth.tar")
    return directory


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        ("v1.1", "google/t5-base-lm-adapt"), ("v1.1", "google/t5-v1_1-xl"), ("v1.0", "t5-base"),
        ("narrow heads", "google/t5-small-lm-adapt"), ("wide heads", "t5-3b"),
    ],
)
def test_atlas(tmp_path: Path, variant: str, kind: str) -> None:
    theirs = make_t5(variant, seed=5)
    checkpoint, notes = convert(save_atlas(tmp_path / "atlas", theirs, reader_model_type=kind))
    config = checkpoint.config
    assert config.input_template == "question: {question} answer: <extra_id_0> title: {title} context: {text}"
    assert (config.passage_length, config.num_retrieved, config.max_new_tokens) == (384, 40, 15)
    assert (config.question_eos, config.passage_eos, config.cross_attention_bias) == (True, True, False)
    assert (config.num_heads, config.d_kv) == (theirs.config.num_heads, theirs.config.d_kv)
    assert (config.num_stage_b_layers, config.num_decoder_layers) == (3, 2)
    assert config.tie_word_embeddings == VARIANTS[variant]["tie_word_embeddings"]
    assert notes == ["left out 2 tensors of Atlas's retriever: passages come from the store, or are given"]
    is_model(checkpoint, theirs)


def test_atlas_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    """transformers 4.18's fast tokenizer, which Atlas pins, has a token for the space before the sentinel."""
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5, vocab_size=32128))
    files = shared_data / "t5_tokenizer"
    made = [
        convert_checkpoint("fid", source, tmp_path / name, tokenizer=files / name)
        for name in ("tokenizer.json", "spiece.model")
    ]
    assert ["name the tokenizer.json" in " ".join(summary["notes"]) for summary in made] == [False, True]
    path = tmp_path / "tokenizer.json"
    ids = TextEncoder.open(path / "tokenizer.json", read_checkpoint(path).config.shape).joined("who?", "T", "x")[0]
    place = ids.index(32099)
    assert ids[place - 1] == 3
    assert ids[-1] == 1


@pytest.mark.parametrize("prefix", ["reader.module.", "module.reader.", "module.reader._orig_mod."])
def test_atlas_wrapped(tmp_path: Path, prefix: str) -> None:
    theirs = make_t5("v1.1", seed=5)
    is_model(convert(save_atlas(tmp_path / "atlas", theirs, prefix=prefix))[0], theirs)


@pytest.mark.parametrize(
    ("task", "template"),
    [
        ("kilt", "question: {question} answer: <extra_id_0> title: {title} context: {text}"),
        ("fever", "question: {question} answer: <extra_id_0> title: {title} context: {text}"),
        ("base", "{question} title: {title} context: {text}"),
    ],
)
def test_atlas_tasks(tmp_path: Path, task: str, template: str) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5), task=task, qa_prompt_format="unused {question}")
    assert convert(source)[0].config.input_template == template


def test_atlas_with_a_config_beside_it(tmp_path: Path) -> None:
    theirs = make_t5("v1.1", seed=5, layer_norm_epsilon=1e-5)
    source = save_atlas(tmp_path / "atlas", theirs, reader_model_type="mine")
    refuse(source, "opt.reader_model_type: expected the T5 .* found mine; put that model's config.json beside")
    theirs.config.save_pretrained(source)
    assert convert(source)[0].config.layer_norm_epsilon == 1e-5


@pytest.mark.parametrize(
    ("options", "match", "fields"),
    [
        ({"task": "mlm"}, "opt.task: expected a task .* found 'mlm'; set input_template",
         {"input_template": "question: {question} context: {text}"}),
        ({"task": None}, "opt.task: .* found None; set input_template", {"input_template": "{question} {text}"}),
        ({"encoder_format": None}, "opt.encoder_format: expected what decides input_template, found None",
         {"input_template": "{question} {text}"}),
        ({"encoder_format": "{query} {section}"}, "may hold only the plain fields",
         {"input_template": "{question} {text}"}),
        ({"text_maxlength": None}, "opt.text_maxlength: expected what decides passage_length", {"passage_length": 99}),
        ({"n_context": "40"}, "opt.n_context: expected what decides num_retrieved, found '40'", {"num_retrieved": 9}),
        ({"generation_max_length": None}, "opt.generation_max_length: expected what decides max_new_tokens",
         {"max_new_tokens": 9}),
    ],
)  # fmt: skip
def test_what_atlas_does_not_say_is_asked_for(
    tmp_path: Path, options: dict[str, object], match: str, fields: dict[str, object]
) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5), **options)
    refuse(source, match)
    config = convert(source, **fields)[0].config
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize(
    "options", [{"generation_num_beams": 4}, {"generation_min_length": 3}, {"decoder_prompt_format": "so {query}:"}]
)
def test_atlas_that_is_not_greedy(tmp_path: Path, options: dict[str, object]) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5), **options)
    refuse(source, rf"opt.{next(iter(options))}: expected greedy answers")


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def test_atlas_with_code_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5), hook=Attack())
    refuse(source, r"model.pth.tar: expected tensors and nothing else, found a pickle that calls \w+\.system")
    assert not (tmp_path / "executed").exists()


def test_options_of_a_class_of_atlass_own(tmp_path: Path) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5), where=Path("/data"))
    refuse(source, r"model.pth.tar: expected tensors and nothing else, found a pickle that calls pathlib")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda content: content.pop("opt"), "expected a mapping with model, .* and opt, found model, optimizer"),
        (lambda content: content.update(model=None), "expected a mapping with model"),
        (lambda content: content["model"].update({"reader.shared.weight": 3}), "expected a mapping with model"),
        (lambda content: content["model"].update({"reranker.weight": torch.ones(2)}), "found reranker.weight"),
        (lambda content: content.update(model={"retriever.x": torch.ones(2)}), "found no reader"),
        (lambda content: content["model"].update({"reader.adapter": torch.ones(2)}), "found 1 more, the first adapter"),
        (lambda content: content["model"].pop("reader.shared.weight"), "expected a matrix reader.shared.weight"),
        (
            lambda content: content["model"].update({"reader.shared.weight": torch.ones(2, 2).to_sparse()}),
            "tensor reader.shared.weight: expected a dense tensor with its values, found sparse_coo tensor",
        ),
        (lambda content: content["model"].pop("reader.decoder.final_layer_norm.weight"), "expected a tensor decoder"),
    ],
)
def test_an_atlas_that_is_not_whole(tmp_path: Path, edit: Callable[[Any], object], match: str) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5))
    path = source / "model.pth.tar"
    content = torch.load(path, weights_only=False)
    edit(content)
    torch.save(content, path)
    refuse(source, match)


@pytest.mark.parametrize("length", [0, 50, -100])
def test_a_truncated_atlas(tmp_path: Path, length: int) -> None:
    source = save_atlas(tmp_path / "atlas", make_t5("v1.1", seed=5))
    content = (source / "model.pth.tar").read_bytes()
    (source / "model.pth.tar").write_bytes(content[:length])
    refuse(source, "model.pth.tar: expected a whole file of tensors")


# Converted by an earlier version.


def test_an_early_fid_is_converted_again(tmp_path: Path) -> None:
    source = save_fid(give_table(make_reader(seed=1)), tmp_path / "fid")
    convert(source)
    path = tmp_path / "ckpt" / "config.json"
    change(path, lambda config: [config.pop(name) for name in ("question_eos", "passage_eos", "cross_attention_bias")])
    with pytest.raises(CheckpointError, match="convert the FiD again with `glimmer-export convert --from fid`"):
        read_checkpoint(tmp_path / "ckpt")


def test_an_early_t5_goes_on_as_it_did(tmp_path: Path) -> None:
    convert(save_t5(make_t5("v1.1", seed=1), tmp_path / "t5"), "huggingface")
    path = tmp_path / "ckpt" / "config.json"
    change(path, lambda config: [config.pop(name) for name in ("question_eos", "passage_eos", "cross_attention_bias")])
    config = read_checkpoint(tmp_path / "ckpt").config
    assert (config.question_eos, config.passage_eos, config.cross_attention_bias) == (True, True, False)
