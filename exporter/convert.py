"""A trained checkpoint of another layout, turned into ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.checkpoint.config import parse_config
from exporter.checkpoint.t5x import convert_t5x, read_name_map
from exporter.checkpoint.tokenizer import find_tokenizer
from exporter.checkpoint.write import write_checkpoint
from exporter.init import summary
from exporter.publish import check_target
from runtime.contract import OptionError

__all__ = ["convert_from_t5x"]


def convert_from_t5x(
    source: Path,
    output: Path,
    *,
    config: Path,
    names: Path | None = None,
    tokenizer: Path | None = None,
    allow_unused: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn the T5X checkpoint of one step into the checkpoint `output`; return its summary.

    What T5X does not keep comes from `config`, a JSON file of the fields of a CheckpointConfig, and from `tokenizer`;
    `names` is a name map. Raises OptionError, CheckpointError, TokenizerError, MissingExtraError and OutputError,
    before anything is written.
    """
    check_target(output, overwrite=overwrite, inputs=[source, config, names, tokenizer])
    parsed = parse_config(read_fields(config), subject=str(config))
    found = find_tokenizer(None, tokenizer)
    conversion = convert_t5x(source, parsed, read_name_map(names) if names else {}, allow_unused=allow_unused)
    write_checkpoint(output, parsed, conversion.tensors, found, overwrite=overwrite)
    made = {"checkpoint": str(output), "source": str(source), "unused": list(conversion.unused)}
    return made | summary(parsed, conversion.tensors, found)


def read_fields(path: Path) -> dict[str, Any]:
    """A JSON object of config fields; raises OptionError where the file cannot be read as one."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"config {path}", expected="a JSON object of a checkpoint's fields", found=str(error),
            fix="write it as the config.json of a checkpoint",
        ) from None
    if not isinstance(data, dict):
        raise OptionError(
            f"config {path}", expected="a JSON object of a checkpoint's fields", found=type(data).__name__,
            fix="write it as the config.json of a checkpoint",
        )
    return data
