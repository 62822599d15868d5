"""Where the YAML files of `configs/` are: inside an installed wheel, or in the source tree."""

from __future__ import annotations

from pathlib import Path

__all__ = ["configs_directory"]


def configs_directory() -> Path:
    """The folder that holds `models/`, `precision/` and `targets/`.

    A wheel carries it as data of this package; an editable install and a clone read the source tree's own.
    """
    package = Path(__file__).resolve().parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"
