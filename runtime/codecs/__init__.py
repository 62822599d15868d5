"""The codecs of a memory store in numpy: what writes a passage's memory, and the reference of what graphs decode."""

from runtime.codecs.contract import Codec
from runtime.codecs.fp16 import decode_fp16, encode_fp16
from runtime.codecs.opening import open_codec

__all__ = ["Codec", "decode_fp16", "encode_fp16", "open_codec"]
