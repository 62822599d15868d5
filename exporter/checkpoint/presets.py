"""The sizes that a random model may have: `configs/models/<name>.yaml`."""

from __future__ import annotations

from glimmer_export.exporter.checkpoint.t5_shape import T5Shape, parse_t5_shape
from glimmer_export.exporter.config.yaml_file import configs_directory, read_yaml
from glimmer_export.runtime.contract import CheckpointError, OptionError

__all__ = ["preset", "preset_names"]


def preset_names() -> tuple[str, ...]:
    """The known sizes."""
    return tuple(sorted(path.stem for path in (configs_directory() / "models").glob("*.yaml")))


def preset(name: str) -> T5Shape:
    """The T5 shape of a size, such as "base".

    Raises OptionError for an unknown name, CheckpointError for a file that does not describe a T5.
    """
    if name not in preset_names():
        raise OptionError(
            f"model size {name!r}", expected=f"one of {', '.join(preset_names())}", found="none of that name",
            fix="choose one of these",
        )
    path = configs_directory() / "models" / f"{name}.yaml"
    data = read_yaml(path, error=CheckpointError, subject=str(path), expected="a YAML mapping", fix="restore the file")
    return parse_t5_shape(data, subject=str(path))
