"""The codecs that there are: those of the modules beside this one, and those registered by a call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType

from glimmer_export.runtime.codecs.contract import CodecFormat, CodecLayout

__all__ = ["CODECS", "codec_layout", "register_codec"]

NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Of a codec: it is a part of the names of graphs and files."""
OTHERS = ("absorbed", "cached")
"""What else graphs are called by in the same place: forms of cross-attention."""
USUAL_WIDTH = 1024
"""That at which codecs are put in order."""


def codec_layout(name: str, d_model: int) -> CodecLayout:
    """The layout of a codec at a width; raises ValueError for one that is not registered, or does not fit the width."""
    if name not in CODECS:
        raise ValueError(f"codec {name!r} is not registered; there are {', '.join(CODECS)}")
    return CODECS[name].layout(d_model)


def register_codec(codec: CodecFormat) -> None:
    """Let stores, bundles and sessions of this process have a codec, from now on.

    Call it before a store or a bundle that names the codec is opened, in every process that opens one. Raises
    ValueError for a name that something else has, or that is not lower-case letters, digits and `_`.
    """
    if not NAME.fullmatch(codec.name) or codec.name in OTHERS:
        raise ValueError(f"codec {codec.name!r}: lower-case letters, digits and _, a letter first, none of {OTHERS}")
    if _registered.setdefault(codec.name, codec) != codec:
        raise ValueError(f"another codec {codec.name!r} is registered already")


def _own() -> Iterator[CodecFormat]:
    """What the modules of this package have, the largest memory first."""
    package = __name__.rpartition(".")[0]
    names = [module.name for module in iter_modules([str(Path(__file__).parent)])]
    found = [
        replace(codec, module=name)
        for name in sorted({*names} - {"contract", "registry"})
        for codec in import_module(f"{package}.{name}").CODECS
    ]
    yield from sorted(found, key=lambda codec: -codec.layout(USUAL_WIDTH).bytes_per_token)


_registered = {codec.name: codec for codec in _own()}
CODECS: Mapping[str, CodecFormat] = MappingProxyType(_registered)
"""By name: ours, the largest memory first, then others in the order of their registration."""
