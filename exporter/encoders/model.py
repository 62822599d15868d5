"""A sentence encoder in torch: a transformer of Hugging Face, its pooling, and what follows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.weight_files import WeightFiles, open_weights
from glimmer_export.exporter.encoders.source import ACTIVATIONS, CONFIG, Dense, EncoderSource
from glimmer_export.runtime.contract import EmbeddingsError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.manifest import MAX_DEPTH
from glimmer_export.runtime.contract.records import read_json

__all__ = ["SentenceModel", "load_model", "load_tokenizer"]

T5_FAMILY = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Models with a decoder that an encoder leaves away."""
DEPTHS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_decoder_layers")
UNSERVED = ("quantization_config", "is_decoder", "is_encoder_decoder")
OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
"""As TensorFlow's checkpoints of BERT were converted."""
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
LEAST_WEIGHT = 1e-9
NORM = 1e-12
FIX = "copy the encoder again, or choose another"


class SentenceModel(nn.Module):
    """input_ids and attention_mask, each (batch, tokens) int64 -> sentence_embedding (batch, dimension) float32."""

    def __init__(self, source: EncoderSource, transformer: nn.Module, dense: list[nn.Module | None]) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = source.pooling
        self.after = nn.ModuleList(Normalise() if module is None else module for module in dense)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As the class says."""
        states: Tensor = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        if self.pooling == "cls":
            pooled = states[:, 0]
        elif self.pooling == "max":
            pooled = states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
        else:
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=LEAST_WEIGHT)
        for module in self.after:
            pooled = cast(Tensor, module(pooled))
        return pooled


class Normalise(nn.Module):
    """Vectors of length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, dimension) -> the same."""
        return torch.nn.functional.normalize(vectors, dim=-1, eps=NORM)


def load_model(source: EncoderSource) -> SentenceModel:
    """The model in float32, its weights checked by name and shape before any is read.

    Raises EmbeddingsError for a config that transformers does not know, CheckpointError for weights that are damaged,
    absent, or none of this model.
    """
    transformer = _transformer(source.transformer)
    model = SentenceModel(source, transformer, [None if part is None else _dense(part) for part in source.after])
    return model.eval().requires_grad_(False)


def load_tokenizer(source: EncoderSource) -> Any:
    """The tokenizer as transformers opens it, without code of the directory's; raises EmbeddingsError."""
    from tokenizers.normalizers import Lowercase, Sequence
    from transformers import AutoTokenizer

    with _theirs(source.transformer, "a tokenizer that transformers can open"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.transformer, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EmbeddingsError(
            f"encoder {source.transformer}", expected="a tokenizer of the library tokenizers", found="another",
            fix="write its tokenizer.json with save_pretrained of a fast tokenizer",
        )
    if source.lower_case:
        backend.normalizer = Sequence([Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])])
    return tokenizer


def _transformer(directory: Path) -> nn.Module:
    from transformers import CONFIG_MAPPING, AutoConfig

    path = directory / CONFIG
    stated = read_json(path, error=EmbeddingsError, fix=FIX)
    kind = stated.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise EmbeddingsError(
            f"encoder {path}", expected="a model_type of transformers", found=repr(kind)[:80],
            fix="choose an encoder without code of its own",
        )
    for name in UNSERVED:
        if stated.get(name) and not (name == "is_encoder_decoder" and kind in T5_FAMILY):
            raise EmbeddingsError(f"encoder {path}", expected=f"no {name}", found=repr(stated[name])[:80], fix=FIX)
    for name in DEPTHS:
        if isinstance(stated.get(name), int) and stated[name] > MAX_DEPTH:
            raise EmbeddingsError(
                f"encoder {path}", expected=f"{name} of at most {MAX_DEPTH}", found=str(stated[name]), fix=FIX
            )
    with _theirs(path, "a config that transformers can read"):
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    files = open_weights(directory)
    with _theirs(path, "sizes that make a model"), torch.device("meta"):
        shapes = _build(config, kind)
    names = _names(shapes, files, str(directory))
    with _theirs(path, "sizes that make a model"):
        model = _build(config, kind)
    model.load_state_dict({name: files.tensor(origin).float() for name, origin in names.items()}, strict=False)
    return model


def _build(config: Any, kind: str) -> nn.Module:
    """A model of random weights; eager attention, which every release traces alike."""
    import transformers

    if kind in T5_FAMILY:
        made: nn.Module = getattr(transformers, T5_FAMILY[kind])._from_config(  # noqa: SLF001 - what from_config calls
            config, attn_implementation="eager", dtype=torch.float32
        )
    else:
        made = transformers.AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return made


def _names(model: nn.Module, files: WeightFiles, subject: str) -> dict[str, str]:
    """The file's name for each of the model's tensors.

    A head's model has the encoder under a prefix, such as `bert.`; a tied table may be there under one of its names.
    """
    stored = files.shapes()
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    given: dict[str, str] = {}
    for origin in stored:
        name = origin
        for old, new in OLD_NAMES:
            name = name.replace(old, new)
        given[name] = origin
    if any(name.startswith(prefix) for name in given):
        given = {name.removeprefix(prefix): origin for name, origin in given.items() if name.startswith(prefix)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tied: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        tied.setdefault(id(parameter), []).append(name)
    found: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = next((given[one] for one in tied.get(id(tensor), [name]) if one in given), None)
        if known is None:
            if name not in parameters or name.startswith("pooler."):
                continue  # a buffer that the model makes itself; a head that is not read
            raise _unfit(subject, f"a tensor {name}", "none")
        if stored[known] != tuple(tensor.shape):
            raise _unfit(subject, f"{known} of shape {list(tensor.shape)}", str(list(stored[known])))
        found[name] = known
    places = {NUMBER.sub("0", name) for name in parameters}
    for name in given:
        if name not in parameters and NUMBER.sub("0", name) in places and NUMBER.search(name):
            raise _unfit(subject, "no layers beyond those of config.json", f"a tensor {name}")
    return found


def _dense(part: Dense) -> nn.Module:
    files = open_weights(part.directory)
    linear = nn.Linear(part.inputs, part.outputs, bias=part.bias)
    tensors = {}
    for name, tensor in linear.state_dict().items():
        stored = files.shapes().get(f"linear.{name}")
        if stored != tuple(tensor.shape):
            wanted = f"linear.{name} of shape {list(tensor.shape)}"
            raise _unfit(str(part.directory), wanted, "none" if stored is None else str(list(stored)))
        tensors[name] = files.tensor(f"linear.{name}").float()
    linear.load_state_dict(tensors)
    return nn.Sequential(linear, getattr(nn, ACTIVATIONS[part.activation])())


def _unfit(subject: str, expected: str, found: str) -> EmbeddingsError:
    return EmbeddingsError(f"encoder {subject}", expected=expected, found=found, fix=FIX)


def _theirs(path: Path, expected: str) -> LibraryErrors:
    """Around transformers, which words damage by whatever class its code happens to raise."""

    def is_theirs(kind: type[BaseException]) -> bool:
        return issubclass(kind, Exception) and not issubclass(kind, EmbeddingsError)

    def named(raised: BaseException) -> EmbeddingsError:
        return EmbeddingsError(
            f"encoder {path}", expected=expected, found=first_line(raised), fix=FIX
        )

    return LibraryErrors(is_theirs, named)
