"""What a directory of Hugging Face or sentence-transformers says of its encoder, without a weight read.

    SOURCE/modules.json                         the modules in their order; without it: a transformer and its pooling
    SOURCE/[0_Transformer/]                     config.json, weights, a tokenizer, sentence_bert_config.json
    SOURCE/1_Pooling/config.json                which pooling
    SOURCE/2_Dense/config.json, model.safetensors
    SOURCE/config_sentence_transformers.json    prompts, which stand before a question or a passage
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import EmbeddingsError, OptionError, inside, is_there
from glimmer_export.runtime.contract.kinds import refuse_ours
from glimmer_export.runtime.contract.manifest import MAX_LENGTH
from glimmer_export.runtime.contract.records import read_json, read_json_value

__all__ = [
    "ACTIVATIONS", "POOLINGS", "Dense", "EncoderChoices", "EncoderSource", "is_encoder_source", "read_encoder_source",
]  # fmt: skip

MODULES, CONFIG, SETTINGS = "modules.json", "config.json", "encoder.json"
TRANSFORMER_CONFIG, PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
POOLINGS = ("mean", "cls", "max")
LEGACY_POOLINGS = {
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken",
}
"""The flags that sentence-transformers wrote before 5.5, and what each is called since."""
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "Identity", "torch.nn.modules.activation.Tanh": "Tanh",
    "torch.nn.modules.activation.ReLU": "ReLU", "torch.nn.modules.activation.GELU": "GELU",
    "torch.nn.modules.activation.Sigmoid": "Sigmoid", "torch.nn.modules.activation.SiLU": "SiLU",
}
"""What a Dense module's config may name, by the class of torch.nn."""
MODULE_TYPES = ("Transformer", "Pooling", "Dense", "Normalize")
PASSAGE_PROMPTS = ("document", "passage", "corpus")
"""As sentence-transformers looks for them, the first that is there."""
FIX = "see `glimmer-export export-encoder --help`"
MAX_WIDTH = 1 << 16
MAX_MODULES = 16


@dataclass(frozen=True)
class EncoderChoices:
    """What is chosen in the place of what the directory says; None leaves it.

    `pooling` and `normalise` are for directories without modules.json, whose defaults are `mean` and no.
    """

    pooling: str | None = None
    normalise: bool | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Dense:
    """A projection of the pooled states; its weights, (outputs, inputs) and (outputs,), are below `directory`."""

    directory: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class EncoderSource:
    """A sentence encoder as its directory describes it; None in `after` is a normalisation to length 1."""

    transformer: Path
    pooling: str
    after: tuple[Dense | None, ...]
    query_prefix: str
    passage_prefix: str
    max_length: int | None
    lower_case: bool


def is_encoder_source(directory: Path) -> bool:
    """Whether a directory is one to export first, and no exported encoder."""
    return not is_there(directory / SETTINGS) and (is_there(directory / MODULES) or is_there(directory / CONFIG))


def read_encoder_source(directory: Path, choices: EncoderChoices) -> EncoderSource:
    """Read the descriptions; raises EmbeddingsError for a module, pooling or activation that is not served, by name.

    OptionError for a pooling that is chosen against a directory's own.
    """
    refuse_ours(
        [directory], expected="a sentence encoder's directory", error=EmbeddingsError, subject="encoder", fix=FIX
    )
    if choices.pooling not in (None, *POOLINGS):
        raise OptionError(
            "pooling", expected=f"one of {', '.join(POOLINGS)}", found=str(choices.pooling), fix="choose one of these"
        )
    if is_there(directory / MODULES):
        if choices.pooling is not None or choices.normalise is not None:
            raise OptionError(
                "pooling, normalise", expected=f"no choice beside {MODULES}, which says both", found="one",
                fix="leave it out",
            )
        transformer, pooling, after = _modules(directory)
    else:
        transformer, pooling = directory, choices.pooling or "mean"
        after = (None,) if choices.normalise else ()
    settings = _optional(transformer / TRANSFORMER_CONFIG)
    length = choices.max_length if choices.max_length is not None else settings.get("max_seq_length")
    if length is not None and not (isinstance(length, int) and 1 <= length <= MAX_LENGTH):
        raise EmbeddingsError(
            f"encoder {directory}, max_length", expected=f"a whole number from 1 to {MAX_LENGTH}", found=repr(length),
            fix=FIX,
        )
    query, passage = _prompts(directory)
    return EncoderSource(
        transformer, pooling, after, query if choices.query_prefix is None else choices.query_prefix,
        passage if choices.passage_prefix is None else choices.passage_prefix, length,
        settings.get("do_lower_case") is True,
    )


def _modules(directory: Path) -> tuple[Path, str, tuple[Dense | None, ...]]:
    path = directory / MODULES
    subject, expected = f"encoder {path}", f"modules of sentence-transformers: {', '.join(MODULE_TYPES)}"
    listed = read_json_value(path, error=EmbeddingsError, subject=subject, expected=expected, fix=FIX)

    def refused(found: str) -> EmbeddingsError:
        return EmbeddingsError(subject, expected=expected, found=found, fix=FIX)

    if not isinstance(listed, list) or len(listed) > MAX_MODULES:
        raise refused("no list" if not isinstance(listed, list) else f"{len(listed)} modules")
    found: list[tuple[str, Path]] = []
    for entry in listed:
        kind, where = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(where, str):
            raise refused(repr(entry)[:80])
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or name not in MODULE_TYPES:
            raise refused(f"a module of type {kind}")
        place = inside(directory, where, error=EmbeddingsError, subject=subject) if where else directory
        found.append((name, place))
    names = [name for name, _ in found]
    if names[:2] != ["Transformer", "Pooling"] or not {*names[2:]} <= {"Dense", "Normalize"}:
        raise refused(f"{', '.join(names) or 'none'} in this order")
    after = tuple(_dense(place) if name == "Dense" else None for name, place in found[2:])
    return found[0][1], _pooling(found[1][1]), after


def _pooling(directory: Path) -> str:
    path = directory / CONFIG
    config = read_json(path, error=EmbeddingsError, fix=FIX)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in LEGACY_POOLINGS.items() if config.get(flag) is True] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise EmbeddingsError(
            f"encoder {path}", expected=f"one pooling of {', '.join(POOLINGS)}", found=" and ".join(map(str, modes)),
            fix="choose another encoder: nothing else pools here",
        )
    if config.get("include_prompt", True) is not True:
        raise EmbeddingsError(
            f"encoder {path}", expected="a pooling over all tokens", found="include_prompt false",
            fix="choose another encoder: a prompt's tokens are not left out here",
        )
    return str(modes[0])


def _dense(directory: Path) -> Dense:
    path = directory / CONFIG
    config = read_json(path, error=EmbeddingsError, fix=FIX)

    def refused(expected: str, found: object) -> EmbeddingsError:
        return EmbeddingsError(f"encoder {path}", expected=expected, found=repr(found), fix=FIX)

    sizes = config.get("in_features"), config.get("out_features")
    if not all(isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MAX_WIDTH for size in sizes):
        raise refused(f"in_features and out_features from 1 to {MAX_WIDTH}", sizes)
    activation, bias = config.get("activation_function", "torch.nn.modules.activation.Tanh"), config.get("bias", True)
    if activation not in ACTIVATIONS:
        raise refused(f"one activation_function of {', '.join(ACTIVATIONS)}", activation)
    if not isinstance(bias, bool):
        raise refused("bias true or false", bias)
    if config.get("use_residual", False) is not False:
        raise refused("no use_residual", config["use_residual"])
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in (None, "sentence_embedding"):
            raise refused(f"{name} sentence_embedding", config[name])
    return Dense(directory, int(sizes[0] or 0), int(sizes[1] or 0), bias, str(activation))


def _prompts(directory: Path) -> tuple[str, str]:
    """What stands before a question, and before a passage."""
    config = _optional(directory / PROMPTS)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise EmbeddingsError(
            f"encoder {directory / PROMPTS}", expected="prompts by name", found=repr(prompts)[:80], fix=FIX
        )
    default = prompts.get(config.get("default_prompt_name") or "") or ""
    passage = next((prompts[name] for name in PASSAGE_PROMPTS if prompts.get(name) is not None), default)
    query = prompts["query"] if prompts.get("query") is not None else default
    return query, passage


def _optional(path: Path) -> Mapping[str, Any]:
    return read_json(path, error=EmbeddingsError, fix=FIX) if is_there(path) else {}
