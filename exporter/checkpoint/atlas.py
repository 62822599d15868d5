"""Atlas (Izacard et al. 2022): the reader of a `model.pth.tar`, and what its run's options say of its text."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.from_t5 import t5_tensors
from glimmer_export.exporter.checkpoint.huggingface import joined_config
from glimmer_export.exporter.checkpoint.pickle_files import PickledTensors, check_dense, load_pickle
from glimmer_export.exporter.checkpoint.t5_shape import CONFIG, T5Shape, parse_t5_shape, read_t5_shape
from glimmer_export.exporter.checkpoint.weight_files import (
    RenamedFiles,
    WeightFiles,
    refuse_adapter,
    say_left_out,
    unwrapped,
)
from glimmer_export.runtime.contract import CheckpointError, is_there

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FILE", "convert_atlas"]

FILE = "model.pth.tar"
READER, RETRIEVER = "reader.", "retriever."
PROMPT = "question: {question} answer: <extra_id_0>"
"""What Atlas's tasks kilt and fever make of a question; qa has an option for it, base leaves it as it is."""
SETTING = "put it into the JSON of --config"


def convert_atlas(
    source: Path, fields: Mapping[str, Any], on_note: Callable[[str], None] = lambda _: None
) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Read the reader of `model.pth.tar`, `{step, model, opt, ...}`, as a `fid` checkpoint; the retriever is left out.

    The template, the lengths and the number of passages are those of `opt`, the options of the run that saved it;
    `fields` replace them. Sizes are those of `config.json` if there is one, else of the tensors, which Atlas does
    not save more of. The pickle may hold tensors and argparse's options, and nothing else.

    Raises CheckpointError as `convert_t5` does, for another pickle, if `opt` does not say what is needed and
    `fields` do not either, and where it asks for more than greedy decoding.
    """
    path = source / FILE
    subject = f"Atlas checkpoint {path}"
    refuse_adapter(source)
    content = load_pickle(path, safe=[argparse.Namespace])
    state, options = _parts(content, subject)
    reader = RenamedFiles(PickledTensors(state), _reader_name, subject=subject)
    shape = read_t5_shape(source) if is_there(source / CONFIG) else _shape_of(reader, options, subject)
    config = joined_config(shape, _fields(options, fields, subject) | dict(fields), subject=subject)
    tensors = t5_tensors(reader, config, shape, subject=subject)
    if not config.cross_attention_bias:
        say_left_out(reader, on_note)
    if left := len(state) - len(reader.shapes()):
        on_note(f"left out {left} tensors of Atlas's retriever: passages come from the store, or are given")
    return config, tensors


def _parts(content: object, subject: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the options of the run."""
    import torch

    keys = sorted(map(str, content)) if isinstance(content, dict) else [type(content).__name__]
    state, options = (content.get("model"), content.get("opt")) if isinstance(content, dict) else (None, None)
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    )
    if not isinstance(state, dict) or not tensors or not isinstance(options, dict):
        raise CheckpointError(
            subject, expected="a mapping with model, its tensors by name, and opt", found=", ".join(keys[:6]),
            fix="take the file that Atlas's train.py saves",
        )
    unknown = [name for name in state if not unwrapped(name).startswith((READER, RETRIEVER))]
    if unknown or not any(unwrapped(name).startswith(READER) for name in state):
        raise CheckpointError(
            subject, expected="tensors of a reader, and of a retriever beside it", found=(unknown or ["no reader"])[0],
            fix="take the file that Atlas's train.py saves",
        )
    check_dense(state, subject=subject)
    return state, options


def _reader_name(name: str) -> str | None:
    name = unwrapped(name)
    return unwrapped(name.removeprefix(READER)) if name.startswith(READER) else None


def _fields(options: Mapping[str, Any], given: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """What `opt` says of the fields that are not given."""
    for name, neutral in (("decoder_prompt_format", ()), ("generation_num_beams", (1,)),
                          ("generation_min_length", (0, 1))):  # fmt: skip
        value = options.get(name)
        if value is not None and not (isinstance(value, int) and value in neutral):
            raise CheckpointError(
                f"{subject}, opt.{name}", expected="greedy answers from the start token on", found=repr(value)[:80],
                fix="only such a reader can be converted",
            )
    told: dict[str, Any] = {"question_eos": True, "passage_eos": True}
    for field, name, less in (("passage_length", "text_maxlength", 0), ("num_retrieved", "n_context", 0),
                              ("max_new_tokens", "generation_max_length", 1)):  # fmt: skip
        if field not in given:
            # The start token counts there.
            told[field] = _told(options, name, int, field, subject) - less
    if "input_template" not in given:
        told["input_template"] = _template(options, subject)
    return told


def _template(options: Mapping[str, Any], subject: str) -> str:
    """Atlas's format of question and passage, with the task's prompt in it."""
    task = options.get("task")
    match task:
        case "qa":
            prompt = _told(options, "qa_prompt_format", str, "input_template", subject)
        case "kilt" | "fever":
            prompt = PROMPT
        case "base":
            prompt = "{question}"
        case _:
            raise CheckpointError(
                f"{subject}, opt.task", expected="a task that says how a question is put to the reader",
                found=repr(task), fix=f'set input_template, such as "{PROMPT} title: {{title}} context: {{text}}": '
                f"{SETTING}",
            )
    encoder_format: str = _told(options, "encoder_format", str, "input_template", subject)
    return encoder_format.replace("{query}", prompt)


def _told(options: Mapping[str, Any], name: str, kind: type, field: str, subject: str) -> Any:
    value = options.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CheckpointError(
            f"{subject}, opt.{name}", expected=f"what decides {field}", found=repr(value), fix=f"set {field}: {SETTING}"
        )
    return value


def _shape_of(reader: WeightFiles, options: Mapping[str, Any], subject: str) -> T5Shape:
    """A published T5's shape by its tensors; whether it is tied, by the name of the model that the run began with."""
    found = reader.shapes()

    def size(name: str, axis: int) -> int:
        if len(found.get(name, ())) != 2:
            raise CheckpointError(
                subject, expected=f"a matrix {READER}{name}", found=str(found.get(name, "none of that name")),
                fix="take the file that Atlas's train.py saves",
            )
        return found[name][axis]

    kind = str(options.get("reader_model_type"))
    first = "encoder.block.0.layer.{}."
    attention, gate = first.format(0) + "SelfAttention.", first.format(1) + "DenseReluDense.wi_0.weight"
    gated = gate in found
    tied = not gated and kind.startswith("t5-")
    if not tied and not (gated and (kind.startswith("google/t5-v1_1-") or kind.endswith("-lm-adapt"))):
        raise CheckpointError(
            f"{subject}, opt.reader_model_type", expected="the T5 (v1.0, v1.1 or lm-adapt) that its tensors are of",
            found=kind, fix=f"put that model's {CONFIG} beside {FILE}",
        )
    heads = size(attention + "relative_attention_bias.weight", 1)
    sizes = {
        "vocab_size": size("shared.weight", 0), "d_model": size("shared.weight", 1), "num_heads": heads,
        "d_kv": size(attention + "q.weight", 0) // max(1, heads),
        "d_ff": size(gate if gated else gate.replace("wi_0", "wi"), 0),
        "relative_attention_num_buckets": size(attention + "relative_attention_bias.weight", 0),
    }
    layers = {stack: {name.split(".")[2] for name in found if name.startswith(f"{stack}.block.")}
              for stack in ("encoder", "decoder")}  # fmt: skip
    return parse_t5_shape(
        {
            **sizes, "num_layers": len(layers["encoder"]), "num_decoder_layers": len(layers["decoder"]) or None,
            "feed_forward_proj": "gated-gelu" if gated else "relu", "tie_word_embeddings": tied,
        },
        subject=subject,
    )
