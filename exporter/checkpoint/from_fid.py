"""A trained FiD reader, partitioned: a LUMEN, GLIMMER or MemoryFiD that begins with what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.fid import convert_fid
from glimmer_export.exporter.checkpoint.from_t5 import partitioned
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.read import read_checkpoint
from glimmer_export.exporter.checkpoint.split_template import split_template
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.exporter.checkpoint.weight_files import CROSS_BIAS
from glimmer_export.runtime.contract import CheckpointError, OptionError
from glimmer_export.runtime.contract.kinds import CHECKPOINT, kind_of, refuse_ours

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["partition_fid"]

OURS, THEIRS = "live_encoder.", "encoder."
KEPT = ("passage_length", "max_new_tokens", "question_eos", "passage_eos")


def partition_fid(
    source: Path, options: ModelOptions, *, seed: int, on_note: Callable[[str], None] = lambda _: None
) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Cut a FiD by depth as `convert_t5` cuts a T5: a directory as `convert_fid` reads it, or a `fid` checkpoint.

    The encoder's layers, the decoder, special tokens, whether EOS follows a text, the longest text (now of a passage
    alone) and the longest answer are the FiD's; `options` replace the lengths. Its template is split in two, unless
    `options` have both. `on_note` is told what cannot be carried over.

    Raises OptionError for the architecture fid and for a template that cannot be split, CheckpointError for another
    checkpoint of ours, and what `convert_fid` and `convert_t5` raise.
    """
    if options.architecture == "fid":
        raise OptionError(
            "option --architecture", expected="glimmer, lumen or memory_fid, with --from-fid", found="fid",
            fix="`glimmer-export convert --from fid` makes a fid checkpoint of it",
        )
    fid, tensors = _read(source, on_note)
    subject = f"FiD {source}"
    shape = _shape(fid)
    config = config_from_options(options, shape, subject=subject, inherited=_inherited(fid, options, subject))
    if fid.cross_attention_bias:
        on_note(
            f"left out {CROSS_BIAS}: it tells places among texts of question and passage from each other, which "
            f"{config.architecture} does not read; training has to make up for it"
        )
    if fid.num_retrieved != config.num_retrieved:
        on_note(f"the FiD reads {fid.num_retrieved} passages, this reads {config.num_retrieved}: --top-k sets another")
    return config, partitioned(_T5Names(tensors), config, shape, options, seed=seed, subject=subject)


def _read(source: Path, on_note: Callable[[str], None]) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    wanted = "a FiD reader's directory, or a checkpoint of the architecture fid"
    if kind_of(source) != CHECKPOINT:
        refuse_ours([source], expected=wanted, error=CheckpointError, subject="FiD", fix="name one of these")
        return convert_fid(source, {}, on_note)
    checkpoint = read_checkpoint(source)
    if checkpoint.config.architecture != "fid":
        raise CheckpointError(
            str(checkpoint), expected=wanted, found=f"one of {checkpoint.config.architecture}",
            fix="name the FiD that was trained",
        )
    return checkpoint.config, checkpoint.tensors


def _shape(fid: CheckpointConfig) -> T5Shape:
    """The T5 that a FiD's layers are of."""
    same = T5Shape.model_fields.keys() & CheckpointConfig.model_fields.keys()
    return T5Shape(num_layers=fid.num_live_layers, **{name: getattr(fid, name) for name in same})


def _inherited(fid: CheckpointConfig, options: ModelOptions, subject: str) -> dict[str, Any]:
    """The fields that a model made of a FiD has from it."""
    fields = {name: getattr(fid, name) for name in KEPT}
    if fid.input_template is None:
        own = ("question_length", "question_template", "passage_template")
        return fields | {name: getattr(fid, name) for name in own}
    if options.question_template is not None and options.passage_template is not None:
        return fields
    question, passage = split_template(fid.input_template, subject=subject)
    return fields | {"question_template": question, "passage_template": passage}


class _T5Names:
    """A FiD's tensors by T5's names, as files have them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        from glimmer_export.exporter.checkpoint.lazy_tensors import specs_of

        return {name.replace(OURS, THEIRS, 1): spec.shape for name, spec in specs_of(self._tensors).items()}

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in."""
        return self._tensors[OURS + name.removeprefix(THEIRS) if name.startswith(THEIRS) else name]
