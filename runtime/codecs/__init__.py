"""The codecs of a memory store: what the memory of a passage is kept in, and what graphs decode.

A codec is a module here, one of its name in exporter/stages/codecs, which decodes in a graph, and one in
exporter/memory/codecs, which fits its arrays, if it has any. Every module here is found, and what it calls CODECS
registered. A codec from elsewhere is registered by a call of `register_codec`. No store and no bundle causes an import:
one that names a codec which is not registered is refused.
"""

from glimmer_export.runtime.codecs.contract import (
    Array,
    Codec,
    CodecArrayError,
    CodecFormat,
    CodecLayout,
    CodecTensor,
)
from glimmer_export.runtime.codecs.fp16 import decode_fp16, encode_fp16
from glimmer_export.runtime.codecs.registry import CODECS, codec_layout, register_codec

__all__ = [
    "CODECS", "Array", "Codec", "CodecArrayError", "CodecFormat", "CodecLayout", "CodecTensor", "codec_layout",
    "decode_fp16", "encode_fp16", "register_codec",
]  # fmt: skip
