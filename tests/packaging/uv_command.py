"""uv, which resolves and installs as pip does in a small part of its time."""

from __future__ import annotations

import os

__all__ = ["uv_command", "uv_environment"]

AS_PIP = {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "SSL_CERT_FILE": "PIP_CERT"}


def uv_command(*words: str) -> list[str]:
    """The words of a command of uv's; what it prints is what was asked for, or an error."""
    from uv import find_uv_bin

    return [find_uv_bin(), *words, "--quiet"]


def uv_environment() -> dict[str, str]:
    """This process's, with the index that pip is told to use, and no Python downloaded."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for ours, pips in AS_PIP.items():
        if pips in os.environ:
            environment.setdefault(ours, os.environ[pips])
    return environment | {"UV_PYTHON_DOWNLOADS": "never"}
