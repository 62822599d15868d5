"""A Hugging Face T5, partitioned into a checkpoint as the papers initialise their models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.initialise import reranker_weights, score_weights
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec
from glimmer_export.exporter.checkpoint.options import FROM_SCRATCH, ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.read import check_shapes, check_values
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape, read_t5_shape
from glimmer_export.exporter.checkpoint.weight_files import CROSS_BIAS, WeightFiles, open_weights, say_left_out
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.runtime.contract import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert_t5", "partitioned", "t5_tensors"]

SHARED, LM_HEAD = "shared.weight", "lm_head.weight"
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def convert_t5(
    source: Path, options: ModelOptions, *, seed: int, on_note: Callable[[str], None] = lambda _: None
) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Cut the T5 in directory `source` (v1.0, v1.1 or flan) by depth (LUMEN paper, section 3; GLIMMER, section 3).

    The encoder's first layers become the memory encoder, the rest the live encoder. Each part gets a copy of the
    encoder's relative-bias table, the live encoder its final norm (so does the memory encoder, with
    `memory_final_norm`), a separate question encoder the memory encoder's weights, a separate reranker those of the
    first live layers, unless `options` want it from scratch. The score head is new. What is new is drawn from `seed`.
    Every tensor keeps the dtype it was stored in; it is read when it is looked up, after a first look at all.
    `on_note` is told what is left out.

    Raises OptionError for an unknown architecture. Raises CheckpointError for a config that is not a T5's or asks for
    what is not supported; for weights that are missing, damaged, unsafe, of the wrong shape, not finite,
    unexpected, or at odds with the config's tied embedding; for an empty stage; for memory layers that T5 lacks.
    """
    shape = read_t5_shape(source)
    subject = f"T5 checkpoint {source}"
    config = config_from_options(options, shape, subject=subject)
    files = open_weights(source)
    tensors = partitioned(files, config, shape, options, seed=seed, subject=subject)
    say_left_out(files, on_note)
    return config, tensors


def partitioned(
    files: WeightFiles, config: CheckpointConfig, shape: T5Shape, options: ModelOptions, *, seed: int, subject: str
) -> LazyTensors:
    """All tensors of a new model of this config: those of a T5 of this shape, and what no T5 has from `seed`."""
    fresh = config.separate_reranker and options.separate_reranker == FROM_SCRATCH
    tensors = t5_tensors(files, config, shape, subject=subject, without=("reranker.",) if fresh else ())
    if fresh:
        tensors = tensors.joined(reranker_weights(config, seed=seed))
    if config.shape.traits.selects:
        tensors = tensors.joined(score_weights(config, seed=seed))
    return tensors


def t5_tensors(
    files: WeightFiles, config: CheckpointConfig, shape: T5Shape, *, subject: str, without: tuple[str, ...] = ()
) -> LazyTensors:
    """The tensors of a model of this config, but for a score head, from those of a T5 of this shape.

    `without` are the prefixes of those of ours that are to come from elsewhere.

    None is left out but copies of the embedding, and a cross-attention's table if the config has none.

    Raises CheckpointError as `convert_t5` does.
    """
    num_layers = config.num_memory_layers + config.num_live_layers
    if num_layers != shape.num_layers:
        raise CheckpointError(
            subject, expected=f"an encoder of {num_layers} layers, for {config.num_memory_layers} memory layers",
            found=f"{shape.num_layers}",
            fix="leave --memory-layers out; only a random model can be given layers that no T5 has",
        )
    found = files.shapes()
    others = ("score.", "shortlist_score.", *without)
    sources = {name: _t5_name(name, config) for name in weight_shapes(config) if not name.startswith(others)}
    # A T5 that is not tied, but that may leave out lm_head because it equals the embedding.
    if LM_HEAD in sources and LM_HEAD not in found and shape.tie_word_embeddings:
        sources[LM_HEAD] = SHARED
    embedding = next((name for name in (SHARED, *ALIASES) if name in found), SHARED)
    sources = {name: embedding if origin == SHARED else origin for name, origin in sources.items()}
    extra = {SHARED, *ALIASES, CROSS_BIAS} - set(sources.values())
    if shape.scales_decoder_output:
        extra.add(LM_HEAD)
    expected = {sources[name]: size for name, size in weight_shapes(config).items() if name in sources}
    check_shapes({name: size for name, size in found.items() if name not in extra}, expected, subject=subject)
    dtypes = {}
    for origin in dict.fromkeys(sources.values()):
        tensor = files.tensor(origin)
        check_values(origin, tensor, subject=subject)
        dtypes[origin] = tensor.dtype
    specs = {name: TensorSpec(found[origin], dtypes[origin]) for name, origin in sources.items()}
    tensors = LazyTensors(specs, lambda name: files.tensor(sources[name]))
    _check_copies(files, extra & set(found) - {CROSS_BIAS}, embedding, tensors[SHARED], shape, subject)
    return tensors


def _t5_name(name: str, config: CheckpointConfig) -> str:
    """Where T5 keeps the tensor that a checkpoint calls `name`."""
    part, _, rest = name.partition(".")
    if part not in ("memory_encoder", "question_encoder", "live_encoder", "reranker"):
        return name
    if rest.endswith("relative_attention_bias.weight") or not rest.startswith("block."):
        return f"encoder.{rest}"
    _, index, layer = rest.split(".", 2)
    first = config.num_memory_layers if part in ("live_encoder", "reranker") else 0
    return f"encoder.block.{int(index) + first}.{layer}"


def _difference(copy: Tensor, shared: Tensor) -> str:
    if copy.shape != shared.shape:
        return f"a matrix of {list(copy.shape)} beside one of {list(shared.shape)}"
    return f"{int((copy != shared).sum()):,} of {copy.numel():,} values that differ"


def _check_copies(
    files: WeightFiles, names: set[str], embedding: str, shared: Tensor, shape: T5Shape, subject: str
) -> None:
    """Refuse a second embedding that differs from the first: whichever were dropped, the model would change."""
    for name in sorted(names - {embedding}):
        copy = files.tensor(name)
        if copy.shape == shared.shape and bool((copy == shared).all()):
            continue
        if name == LM_HEAD:
            declared = "tie_word_embeddings" if shape.scale_decoder_outputs is None else "scale_decoder_outputs"
            raise CheckpointError(
                f"{subject}, tensor {name}", expected=f"the embedding again, as config.json says {declared}: true",
                found=_difference(copy, shared),
                fix="set tie_word_embeddings to false if the model was trained with a projection of its own (T5 v1.1)",
            )
        raise CheckpointError(
            f"{subject}, tensor {name}", expected=f"the same as {embedding}", found=_difference(copy, shared),
            fix="only T5's one embedding for encoder and decoder is supported",
        )
