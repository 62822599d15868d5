"""The one way in which a configuration is read: one of ours by its name, or a YAML file of the user's.

    configs/targets/NAME.yaml      target    a machine: its rates, and how to compile for it
    configs/precision/NAME.yaml    policy    what is quantised, and how
    configs/parity/NAME.yaml       gate      what a bundle may lose
    configs/models/NAME.yaml       size      the shape of a random model
    configs/training/NAME.yaml     recipe    how a checkpoint is trained
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from glimmer_export.exporter.config.yaml_file import configs_directory, read_yaml
from glimmer_export.runtime.contract import OptionError, is_there

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = [
    "FOLDERS", "NAME_OR_FILE", "ConfigKind", "config_file", "config_label", "config_names", "known", "read_config",
    "validation_message",
]  # fmt: skip

ConfigKind = Literal["target", "policy", "gate", "size", "recipe"]
Model = TypeVar("Model", bound="BaseModel")

FOLDERS: dict[ConfigKind, str] = {
    "target": "targets", "policy": "precision", "gate": "parity", "size": "models", "recipe": "training",
}
"""Where those of ours stand below `configs/`; a file in one of these needs to be named nowhere else."""
YAML = (".yaml", ".yml")
NAME_OR_FILE = "NAME|FILE"
"""What stands for one in a help text."""


def config_names(kind: ConfigKind) -> tuple[str, ...]:
    """Those that come with the package."""
    return tuple(sorted(path.stem for path in (configs_directory() / FOLDERS[kind]).glob("*.yaml")))


def known(kind: ConfigKind) -> str:
    """What may be named, for a help text. An error lists the names: a new file in `configs/` changes no text."""
    return f"a name in configs/{FOLDERS[kind]} (any other lists them), or a YAML file like those"


def config_file(kind: ConfigKind, name: str) -> Path:
    """The file that `read_config` reads, whether there is one or not."""
    return configs_directory() / FOLDERS[kind] / f"{name}.yaml" if name in config_names(kind) else Path(name)


def config_label(kind: ConfigKind, name: str) -> str:
    """What to call it: a file by its name with the ending, so that one's own `t4.yaml` is not taken for "t4"."""
    return name if name in config_names(kind) else Path(name).name


def read_config(kind: ConfigKind, name: str, model: type[Model]) -> Model:
    """A configuration by name, such as the target "t4", or by the path of a YAML file.

    Raises OptionError for a name that there is not, and for a file that is absent, damaged, or has an unknown, a
    missing or a mistyped field, or one twice.
    """
    from pydantic import ValidationError

    path, names = config_file(kind, name), config_names(kind)
    if name not in names and not (path.suffix in YAML and is_there(path)):
        raise OptionError(
            f"{kind} {name!r}", expected=f"one of {', '.join(names)}, or a YAML file", found="none of that name",
            fix=f"choose one of these, or copy one of configs/{FOLDERS[kind]} and name the copy",
        )
    data = read_yaml(path, error=OptionError, subject=str(path), expected="a YAML mapping", fix="correct the file")
    if not isinstance(data, dict):
        raise OptionError(
            str(path), expected=f"a mapping of a {kind}'s fields",
            found="an empty file" if data is None else f"a {type(data).__name__}",
            fix=f"copy one of configs/{FOLDERS[kind]} and change it",
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise OptionError(
            str(path), expected=f"a {kind} as configs/{FOLDERS[kind]} has them", found=validation_message(error),
            fix="correct the named fields",
        ) from None


def validation_message(error: ValidationError) -> str:
    """Every wrong field with what is wrong about it, on one line."""
    return "; ".join(
        (".".join(map(str, item["loc"])) + ": " if item["loc"] else "") + item["msg"] for item in error.errors()
    )
