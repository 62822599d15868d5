"""The codecs of a memory store in numpy: what writes a passage's memory, and the reference of what graphs decode."""

from glimmer_export.runtime.codecs.contract import Codec
from glimmer_export.runtime.codecs.fp16 import decode_fp16, encode_fp16
from glimmer_export.runtime.codecs.opening import open_codec

__all__ = ["Codec", "decode_fp16", "encode_fp16", "open_codec"]
