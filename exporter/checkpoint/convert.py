"""A trained checkpoint of another layout, turned into ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.config import parse_config, read_config
from glimmer_export.exporter.checkpoint.fid import convert_fid
from glimmer_export.exporter.checkpoint.huggingface import convert_huggingface
from glimmer_export.exporter.checkpoint.init import summary
from glimmer_export.exporter.checkpoint.t5x import convert_t5x, read_name_map
from glimmer_export.exporter.checkpoint.tokenizer import check_agreement, find_tokenizer, tokenizer_for
from glimmer_export.exporter.checkpoint.write import is_written, write_checkpoint
from glimmer_export.exporter.files.publish import check_target
from glimmer_export.runtime.contract import CheckpointError, OptionError
from glimmer_export.runtime.contract.kinds import refuse_ours
from glimmer_export.runtime.contract.records import read_json_value

if TYPE_CHECKING:
    from torch import Tensor

    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["convert_checkpoint"]

SENTINEL = "<extra_id_"
CONFIG_FIX = "write it as the config.json of a checkpoint"


def convert_checkpoint(
    layout: str,
    source: Path,
    output: Path,
    *,
    config: Path | None = None,
    names: Path | None = None,
    tokenizer: Path | None = None,
    allow_unused: Sequence[str] = (),
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Turn `source`, whose layout is `t5x`, `fid` or `huggingface`, into the checkpoint `output`; return its summary.

    `config` is a JSON file of fields of a CheckpointConfig: all of them for `t5x`, which keeps none, else those that
    replace what the directory and the layout say. `names` (a name map) and `allow_unused` are for `t5x`. The tokenizer
    is the given file, else the directory's own, else there is none. `on_tensor` is `write_checkpoint`'s. Raises
    OptionError, CheckpointError, TokenizerError, MissingExtraError and OutputError, before anything is written. Where
    the checkpoint is there already, to the last bit, the summary says `already_complete` and nothing is done.
    """
    present = not overwrite and _is_checkpoint(output)
    check_target(output, overwrite=overwrite or present, inputs=[source, config, names, tokenizer])
    refuse_ours(
        [source], expected=f"a checkpoint in the layout {layout}", error=CheckpointError, subject="checkpoint",
        fix="name the directory that the training wrote",
    )
    if layout == "t5x" and config is None:
        raise OptionError(
            "option --config", expected="the model's config: T5X keeps none", found="no such option", fix=CONFIG_FIX
        )
    if layout != "t5x" and (names or allow_unused):
        raise OptionError(
            "options --map and --allow-unused", expected="--from t5x", found=layout, fix="leave them out"
        )
    fields = _read_fields(config) if config else {}
    if tokenizer is None:
        check_agreement(source)
    found = find_tokenizer(source, tokenizer)
    converted: CheckpointConfig
    tensors: Mapping[str, Tensor]
    unused: tuple[str, ...] = ()
    notes: list[str] = []
    match layout:
        case "t5x":
            converted = parse_config(fields, subject=str(config))
            conversion = convert_t5x(
                source, converted, read_name_map(names) if names else {}, allow_unused=allow_unused
            )
            tensors, unused = conversion.tensors, conversion.unused
        case "fid":
            converted, tensors = convert_fid(source, fields, notes.append)
        case _:
            converted, tensors = convert_huggingface(source, fields, notes.append)
    if tokenizer is not None and tokenizer.suffix == ".model" and SENTINEL in (converted.input_template or ""):
        notes.append(
            f"Atlas has a token for the space before {SENTINEL}0>, as T5's published tokenizer.json does; one "
            "that is made of a sentencepiece model has none: name the tokenizer.json by --tokenizer"
        )
    found = tokenizer_for(converted, found)
    complete = present and is_written(output, converted, tensors, found)
    if not complete:
        write_checkpoint(output, converted, tensors, found, overwrite=overwrite, on_tensor=on_tensor)
    made: dict[str, Any] = {"checkpoint": str(output), "source": str(source), "layout": layout, "unused": list(unused)}
    made |= {"notes": notes, "already_complete": complete}
    return made | summary(converted, tensors, found)


def _is_checkpoint(directory: Path) -> bool:
    try:
        read_config(directory)
    except CheckpointError:
        return False
    return True


def _read_fields(path: Path) -> dict[str, Any]:
    """A JSON object of config fields; raises OptionError if the file cannot be read as one."""
    subject, expected = f"config {path}", "a JSON object of a checkpoint's fields"
    data = read_json_value(path, error=OptionError, subject=subject, expected=expected, fix=CONFIG_FIX, strict=True)
    if not isinstance(data, dict):
        raise OptionError(subject, expected=expected, found=type(data).__name__, fix=CONFIG_FIX)
    return data
