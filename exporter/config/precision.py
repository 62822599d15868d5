"""Policies of quantisation: `configs/precision/<name>.yaml`, or a file of the user's own."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.calibration.policy import Policy
from glimmer_export.exporter.checkpoint.config import validation_message
from glimmer_export.exporter.config.yaml_file import configs_directory, read_yaml
from glimmer_export.runtime.contract import OptionError

__all__ = ["DEFAULT_POLICY", "policy_file", "policy_names", "read_policy"]

DEFAULT_POLICY = "int8"


def policy_names() -> tuple[str, ...]:
    """The policies that come with the package."""
    return tuple(sorted(path.stem for path in (configs_directory() / "precision").glob("*.yaml")))


def policy_file(name: str) -> Path:
    """The file that `read_policy` reads, whether there is one or not."""
    return configs_directory() / "precision" / f"{name}.yaml" if name in policy_names() else Path(name)


def read_policy(name: str) -> Policy:
    """A policy by name, or by the path of a YAML file; raises OptionError where there is none or it is damaged."""
    from pydantic import ValidationError

    path = policy_file(name)
    if name not in policy_names() and (path.suffix not in (".yaml", ".yml") or not path.is_file()):
        raise OptionError(
            f"policy {name!r}", expected=f"one of {', '.join(policy_names())}, or a YAML file",
            found="none of that name", fix="choose one of these, or copy one of configs/precision and name it",
        )
    data = read_yaml(path, error=OptionError, subject=str(path), expected="a YAML mapping", fix="correct the file")
    try:
        return Policy.model_validate(_tuples(data))
    except ValidationError as error:
        raise OptionError(
            str(path), expected="a policy as configs/precision has them", found=validation_message(error),
            fix="correct the named fields",
        ) from None


def _tuples(data: object) -> object:
    """YAML has lists where a frozen model has tuples."""
    if not isinstance(data, dict):
        return data
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
