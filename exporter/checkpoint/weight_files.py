"""A foreign checkpoint's tensors, whatever files they lie in and whatever training wrapped around their names.

Among them may be the relative-position table of the decoder's cross-attention, which transformers before 4.0 alone read
at training.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glimmer_export.exporter.checkpoint import pickle_files, safetensors_files
from glimmer_export.runtime.contract import CheckpointError, is_there

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CROSS_BIAS", "RenamedFiles", "WeightFiles", "changes_attention", "open_weights", "refuse_adapter",
    "say_left_out", "unwrapped",
]  # fmt: skip

ADAPTER = "adapter_config.json"
OUTER = re.compile(r"^(?:module|model)\.")
INNER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts around a module: data parallelism and trainers around it all, compilation and sharding anywhere."""


class WeightFiles(Protocol):
    """Tensors of a directory, by name, whatever the format."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        ...

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in."""
        ...


class RenamedFiles:
    """Tensors by other names; those that `rename` gives None are left out.

    Raises CheckpointError if two would have one name.
    """

    def __init__(self, files: WeightFiles, rename: Callable[[str], str | None], *, subject: str) -> None:
        self._files = files
        self._shapes = files.shapes()
        self._origins: dict[str, str] = {}
        for origin in self._shapes:
            if (name := rename(origin)) is None:
                continue
            if name in self._origins:
                raise CheckpointError(
                    subject, expected=f"one tensor {name}", found=f"{self._origins[name]} and {origin}",
                    fix="save the model's state_dict alone",
                )
            self._origins[name] = origin

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by its new name."""
        return {name: self._shapes[origin] for name, origin in self._origins.items()}

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in."""
        return self._files.tensor(self._origins[name])


def open_weights(source: Path) -> WeightFiles:
    """Safetensors if there are some, else pickles; by names that no wrapper of torch stands around.

    Raises CheckpointError if there are neither, and for an adapter beside them, which would be left out.
    """
    refuse_adapter(source)
    layouts = (safetensors_files.SafetensorsFiles, safetensors_files), (pickle_files.PickleFiles, pickle_files)
    for layout, names in layouts:
        if is_there(source / names.SINGLE) or is_there(source / names.INDEX):
            return RenamedFiles(layout(source), unwrapped, subject=f"checkpoint {source}")
    wanted = [name for _, names in layouts for name in (names.SINGLE, names.INDEX)]
    raise CheckpointError(
        f"T5 checkpoint {source}", expected=f"one of {', '.join(wanted)}", found="none of them",
        fix="copy the weights into the directory",
    )


def refuse_adapter(source: Path) -> None:
    """Raise CheckpointError if an adapter stands beside the weights: trained, and part of no tensor there."""
    if is_there(source / ADAPTER):
        raise CheckpointError(
            f"checkpoint {source}", expected="the weights of a whole model",
            found=f"{ADAPTER}, an adapter that is not merged into them",
            fix="merge it with PEFT's merge_and_unload, and convert what save_pretrained writes",
        )


def unwrapped(name: str) -> str:
    """A tensor's name without what torch's wrappers and trainers add: `module._orig_mod.shared.weight` is T5's."""
    name = INNER.sub("", name)
    while match := OUTER.match(name):
        name = name[match.end() :]
    return name


CROSS_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""T5 has none; transformers added one of random values, which a model that was trained with it has learned."""


def changes_attention(files: WeightFiles) -> bool:
    """Whether there is a table, (buckets, heads), that tells positions apart.

    The softmax ignores what is added to all keys of a head, so a table that is constant a head changes nothing.
    """
    if CROSS_BIAS not in files.shapes():
        return False
    table = files.tensor(CROSS_BIAS)
    return not bool(((table == table[:1]) & table.isfinite()).all())


def say_left_out(files: WeightFiles, on_note: Callable[[str], None]) -> None:
    """Note a table that is there and not read, and why."""
    if CROSS_BIAS not in files.shapes():
        return
    if changes_attention(files):
        why = (
            "transformers has not read it since 4.0; of weights that an earlier one trained, `convert` carries it with "
            '{"cross_attention_bias": true} in --config'
        )
    else:
        why = "it is constant for each head, which changes no attention"
    on_note(f"left out {CROSS_BIAS}: {why}")
