"""New checkpoints: a T5 or a trained FiD partitioned, or a random model of a known size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.from_fid import partition_fid
from glimmer_export.exporter.checkpoint.from_t5 import convert_t5
from glimmer_export.exporter.checkpoint.initialise import RandomWeights
from glimmer_export.exporter.checkpoint.lazy_tensors import specs_of
from glimmer_export.exporter.checkpoint.options import FROM_T5, ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.checkpoint.tokenizer import check_agreement, find_tokenizer, tokenizer_for
from glimmer_export.exporter.checkpoint.write import write_checkpoint
from glimmer_export.exporter.files.publish import check_target
from glimmer_export.runtime.contract import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["init_from_fid", "init_from_t5", "init_random", "summary"]


def init_from_t5(
    source: Path,
    output: Path,
    options: ModelOptions,
    *,
    tokenizer: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] = lambda *_: None,
    name: str | None = None,
) -> dict[str, Any]:
    """Partition the Hugging Face T5 in `source` into the checkpoint `output`; return its summary.

    The tokenizer is the given file, else the T5's own, else there is none. `on_tensor(index, count)` is called before
    each tensor is written. `name` is what the summary calls the source, if not by its directory. Raises OptionError,
    CheckpointError, TokenizerError and OutputError, before anything is written.
    """
    check_target(output, overwrite=overwrite, inputs=[source, tokenizer])
    found = find_tokenizer(source, tokenizer)
    notes: list[str] = []
    config, tensors = convert_t5(source, options, seed=seed, on_note=notes.append)
    write_checkpoint(output, config, tensors, found, overwrite=overwrite, on_tensor=on_tensor)
    made = {"checkpoint": str(output), "source": name or str(source), "seed": seed, "notes": notes}
    return made | summary(config, tensors, found)


def init_from_fid(
    source: Path,
    output: Path,
    options: ModelOptions,
    *,
    tokenizer: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] = lambda *_: None,
    name: str | None = None,
) -> dict[str, Any]:
    """The same with a trained FiD: a directory as `convert --from fid` reads it, or a `fid` checkpoint."""
    check_target(output, overwrite=overwrite, inputs=[source, tokenizer])
    notes: list[str] = []
    config, tensors = partition_fid(source, options, seed=seed, on_note=notes.append)
    if tokenizer is None:
        check_agreement(source)
    found = tokenizer_for(config, find_tokenizer(source, tokenizer))
    write_checkpoint(output, config, tensors, found, overwrite=overwrite, on_tensor=on_tensor)
    made = {"checkpoint": str(output), "source": name or str(source), "seed": seed, "notes": notes}
    return made | summary(config, tensors, found)


def init_random(
    size: str,
    output: Path,
    options: ModelOptions,
    *,
    tokenizer: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Write a checkpoint of random weights at a preset size ("small" to "xxl"); return its summary.

    Raises OptionError, CheckpointError, TokenizerError and OutputError, before anything is written.
    """
    check_target(output, overwrite=overwrite, inputs=[tokenizer])
    if options.separate_reranker == FROM_T5:
        raise OptionError(
            "option --separate-reranker", expected="random, as no T5 is there to copy layers of", found=FROM_T5,
            fix="pass --separate-reranker random",
        )
    found = find_tokenizer(None, tokenizer)
    config = config_from_options(options, preset(size), subject=f"random model of size {size}")
    tensors = RandomWeights(config, seed=seed)
    write_checkpoint(output, config, tensors, found, overwrite=overwrite, on_tensor=on_tensor)
    return {"checkpoint": str(output), "source": f"random {size}", "seed": seed} | summary(config, tensors, found)


def summary(config: CheckpointConfig, tensors: Mapping[str, Tensor], tokenizer: bytes | None) -> dict[str, Any]:
    """What was made: layers of each part, parameters (a number of weights) and bytes of weights."""
    specs = specs_of(tensors).values()
    return {
        "architecture": config.architecture,
        "layers": {
            "memory": config.num_memory_layers,
            "stage_a": config.num_stage_a_layers,
            "stage_b": config.num_stage_b_layers,
            "decoder": config.num_decoder_layers,
        },
        "separate_reranker": config.separate_reranker,
        "num_retrieved": config.num_retrieved,
        "num_selected": config.num_selected,
        "parameters": sum(spec.size for spec in specs),
        "weight_bytes": sum(spec.num_bytes for spec in specs),
        "has_tokenizer": tokenizer is not None,
    }
