"""Damage to bytes, whatever they mean: flipped, cut, zeroed, put in, repeated, and lengths made larger."""

from __future__ import annotations

from random import Random

__all__ = ["damage_bytes"]

HUGE = (0x7F, 0xFF, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, (1 << 64) - 1)
MAX_LENGTH = 1 << 16
"""What stands in a file as a length: bytes that could be one, and are no text."""


def damage_bytes(content: bytes, random: Random) -> bytes:
    """The content after one to three kinds of damage."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice(KINDS)(content, random) if content else random.randbytes(random.randrange(9))
    return content


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 16))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _replaced(content: bytes, random: Random) -> bytes:
    place, length = random.randrange(len(content)), random.choice((1, 2, 8, 64))
    length = min(length, len(content) - place)
    return content[:place] + random.randbytes(length) + content[place + length :]


def _filled(content: bytes, random: Random) -> bytes:
    place, length = random.randrange(len(content)), random.choice((1, 4, 8, 64, 512))
    length = min(length, len(content) - place)
    return content[:place] + bytes([random.choice((0, 0, 0x7F, 0xFF))]) * length + content[place + length :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _put_in(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.randbytes(random.choice((1, 4, 16, 300))) + content[place:]


def _taken_out(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + content[place + random.choice((1, 4, 16, 300)) :]


def _repeated(content: bytes, random: Random) -> bytes:
    begin = random.randrange(len(content))
    end = min(len(content), begin + random.choice((1, 8, 64, 4096)))
    return content[:end] + content[begin:end] * random.choice((1, 1, 2, 50)) + content[end:]


def _moved(content: bytes, random: Random) -> bytes:
    begin, place = random.randrange(len(content)), random.randrange(len(content))
    piece = content[begin : begin + random.choice((4, 8, 64))]
    return content[:place] + piece + content[place + len(piece) :]


def _longer(content: bytes, random: Random) -> bytes:
    """A little- or big-endian number of 2, 4 or 8 bytes, small enough for a length, becomes a huge one."""
    width, order = random.choice((2, 4, 4, 8, 8)), random.choice(("little", "little", "big"))
    for _ in range(200):
        place = random.randrange(max(1, len(content) - width))
        if 0 < int.from_bytes(content[place : place + width], order) < MAX_LENGTH:
            break
    number = random.choice(HUGE) % (1 << (8 * width))
    return content[:place] + number.to_bytes(width, order) + content[place + width :]


def _longer_varint(content: bytes, random: Random) -> bytes:
    """A byte becomes a variable-length number, as protobuf and thrift have lengths, of up to ten bytes."""
    place, number, encoded = random.randrange(len(content)), random.choice(HUGE), bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return content[:place] + bytes([*encoded, number]) + content[place + 1 :]


KINDS = (
    _flipped, _flipped, _replaced, _filled, _cut, _put_in, _taken_out, _repeated, _moved, _longer, _longer_varint,
)  # fmt: skip
