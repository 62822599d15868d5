"""What each contender needs that may not be installed, looked for before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from glimmer_export.exporter.bench.roster import CTRANSLATE2, FASTER, OPENVINO, OPTIMUM_FID, Peer
from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["OPTIMUM", "require_engines"]

OPTIMUM = "optimum"
"""The package, and the folder of a bench that what it exported is in."""
EXPORT_APART = (
    "glimmer-export[optimum] asks for an older transformers, so export with it from a folder of its own: pip install "
    "--no-deps --target .venv/optimum -r constraints-optimum.txt, then this command with --prepare and --work DIR "
    "under PYTHONPATH=.venv/optimum, and then without both with the same --work"
)
FIXES = {
    OPENVINO: "pip install 'glimmer-export[openvino]', or leave the peer out",
    CTRANSLATE2: "pip install 'glimmer-export[peers]', or leave the peer out",
    "transformers": "pip install 'glimmer-export[export]'",
    OPTIMUM: EXPORT_APART,
}


def require_engines(peers: Sequence[Peer], directory: Path) -> None:
    """Raise MissingExtraError for the first peer whose engine, or whose exporter while it is needed, is missing."""
    for peer in peers:
        for package in _needed(peer, directory):
            if not _is_installed(package):
                raise MissingExtraError(
                    f"--peers {peer.name}", expected=f"the package {package}", found="none", fix=FIXES[package]
                )


def _needed(peer: Peer, directory: Path) -> list[str]:
    """Packages, not those that every bench needs."""
    engine = OPENVINO if peer.engine == FASTER else peer.engine
    packages = [engine] if engine in FIXES else []
    if peer.form == OPTIMUM_FID:
        return packages + ([] if (directory / OPTIMUM).exists() else [OPTIMUM])
    return packages + ([] if peer.is_ours else ["transformers"])


def _is_installed(package: str) -> bool:
    # optimum is a namespace, which a package that extends it can make without it.
    try:
        return find_spec("optimum.version" if package == OPTIMUM else package) is not None
    except ModuleNotFoundError:
        return False
