"""Golden folders as they were written: weights that an earlier schema's bundle has too are kept there alone."""

from __future__ import annotations

import shutil
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from glimmer_export.runtime.contract import read_manifest

GOLDEN = Path(__file__).parent
WEIGHTS = Path("graphs", "weights.data")


@cache
def _copies() -> TemporaryDirectory[str]:
    """Removed when the process ends."""
    return TemporaryDirectory(prefix="glimmer-golden-")


@cache
def whole(schema: str) -> Path:
    """A copy of `tests/golden/SCHEMA` in which each bundle has its weights."""
    copy = shutil.copytree(GOLDEN / schema, Path(_copies().name) / schema)
    for bundle in copy.glob("bundle*"):
        if not (bundle / WEIGHTS).exists():
            shutil.copyfile(_weights(bundle), bundle / WEIGHTS)
    return copy


def _weights(bundle: Path) -> Path:
    """Those that its manifest names, in a bundle of the same name."""
    wanted = read_manifest(bundle).weights.sha256
    for kept in sorted(GOLDEN.glob(f"**/{bundle.name}/{WEIGHTS}")):
        if sha256(kept.read_bytes()).hexdigest() == wanted:
            return kept
    raise FileNotFoundError(f"no bundle under {GOLDEN} has the weights of {bundle.name}: {wanted}")
