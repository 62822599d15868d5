"""Settings of `serve` where they do not stand on the command line: a YAML file, and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.config.yaml_file import read_yaml
from glimmer_export.runtime.contract import OptionError

__all__ = ["ENVIRONMENT", "environment_settings", "file_settings"]

ENVIRONMENT = "GLIMMER_SERVE_"
"""What a variable's name begins with; the setting's own follows, in capitals."""
LISTS = frozenset({"cors_origins"})
"""Settings of several values, which have commas between them in a variable."""


def environment_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in variables; what they may be is looked at with all others."""
    found = {
        name.removeprefix(ENVIRONMENT).lower(): value
        for name, value in environment.items() if name.startswith(ENVIRONMENT)
    }
    return {name: tuple(filter(None, value.split(","))) if name in LISTS else value for name, value in found.items()}


def file_settings(path: Path) -> dict[str, Any]:
    """The settings in a file, whose relative paths are from where the command runs; raises OptionError."""
    data = read_yaml(path, error=OptionError, subject=str(path), expected="a YAML mapping", fix="correct the file")
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise OptionError(
            str(path), expected="a mapping of settings, such as `max_queue: 64`",
            found="an empty file" if data is None else f"a {type(data).__name__}", fix="correct the file",
        )
    return data
