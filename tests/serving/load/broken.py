"""Requests that are broken, each by a seed: as bytes, as HTTP, as JSON, or as a question."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

__all__ = ["KINDS", "Broken", "broken"]

REFUSED = frozenset(range(400, 500))
MAY_PASS = REFUSED | {200, 204, 307}
"""Of a damage that may leave a request sound; 307: starlette's, of a path with one slash too many."""
PATHS = ("/v1/answer", "/v1/rerank", "/v1/chat/completions")
SOUND = {
    "/v1/answer": {"question": "w0 w7"},
    "/v1/rerank": {"query": "w0", "documents": ["w1", "w2"]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "w0 w7"}]},
}
BOMB = 200_000


@dataclass(frozen=True)
class Broken:
    """Bytes to send, after which the client waits, or hangs up its half; the statuses that are in order.

    `silence` says that the connection may be closed without a word: the client has hung up, or said nothing.
    """

    kind: str
    sent: bytes
    allowed: frozenset[int] = REFUSED
    hangs_up: bool = False
    silence: bool = False


def request(
    body: bytes, path: str = "/v1/answer", *, method: bytes = b"POST", length: bytes | None = None,
    headers: bytes = b"Content-Type: application/json\r\n", host: bytes = b"Host: localhost\r\n",
) -> bytes:
    """One of HTTP/1.1 that asks for the connection to be closed, so that its end is seen."""
    said = str(len(body)).encode() if length is None else length
    return (
        method + b" " + path.encode() + b" HTTP/1.1\r\n" + host + b"Connection: close\r\n" + headers
        + b"Content-Length: " + said + b"\r\n\r\n" + body
    )


def sound(random: Random) -> tuple[str, bytes]:
    """A path, and a body that it takes."""
    path = random.choice(PATHS)
    return path, json.dumps(SOUND[path]).encode()


def cut(random: Random) -> Broken:
    path, body = sound(random)
    whole = request(body, path)
    return Broken("cut", whole[: random.randrange(len(whole))], hangs_up=True, silence=True)


def stalled(random: Random) -> Broken:
    """The deadline ends it."""
    path, body = sound(random)
    whole = request(body, path)
    return Broken("stalled", whole[: random.randrange(len(whole))])


def flipped(random: Random) -> Broken:
    path, body = sound(random)
    whole = bytearray(request(body, path))
    for _ in range(random.choice((1, 1, 2, 8))):
        whole[random.randrange(len(whole))] = random.randrange(256)
    return Broken("flipped", bytes(whole), MAY_PASS, hangs_up=True, silence=True)


def noise(random: Random) -> Broken:
    starts = (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET ",
              b"\r\n" * 50, b"EHLO here\r\n", b"\x05\x01\x00", b"POST /v1/answer HTTP/1.1\r\n", b"\x00" * 64)
    sent = random.choice(starts) + random.randbytes(random.choice((0, 1, 100, 5000, BOMB))) + b"\r\n\r\n"
    return Broken("noise", sent, MAY_PASS, hangs_up=True, silence=True)


def chunked(random: Random) -> Broken:
    path, body = sound(random)
    size = f"{len(body):x}".encode()
    bodies = (
        b"zz\r\n" + body + b"\r\n0\r\n\r\n", b"-5\r\n" + body + b"\r\n0\r\n\r\n", b"\r\n" + body + b"\r\n0\r\n\r\n",
        b"0x10\r\n" + body + b"\r\n0\r\n\r\n", b"f" * 40 + b"\r\n" + body, size + body + b"0\r\n\r\n",
        size + b"\r\n" + body + b"XX0\r\n\r\n", b"1\r\n" + body + b"\r\n0\r\n\r\n",
        size + b";" + b"x" * BOMB + b"\r\n" + body,
        b"0\r\n\r\n", size + b"\r\n" + body[:-1] + b"\r\n0\r\n\r\n", b"ffffff\r\n" + b" " * (2 << 20),
        b"1\r\n{\r\n" * 2000 + b"0\r\n\r\n", b"1\r\n{\r\n0\r\nX: " + b"y" * BOMB + b"\r\n\r\n",
    )
    both = random.random() < 0.2
    head = request(b"", path, headers=b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")
    head = head if both else head.replace(b"Content-Length: 0\r\n", b"")
    if not both and random.random() < 0.2:
        coding = random.choice((b"gzip", b"chunked, chunked", b"CHUNKED,", b""))
        head = head.replace(b"Encoding: chunked", b"Encoding: " + coding)
    return Broken("chunked", head + random.choice(bodies), MAY_PASS, hangs_up=True, silence=True)


def lengths(random: Random) -> Broken:
    path, body = sound(random)
    said = random.choice((
        b"-1", b"+5", b"0x10", b"1e3", b"", b" ", b"9" * 30, b"9" * 18, b"1 2", b"3,3", str(len(body) - 1).encode(),
        str(1 << 21).encode(), b"\xb2", b"0" * 5000 + b"5", b"1\r\nContent-Length: 2",
    ))
    return Broken("lengths", request(body, path, length=said), hangs_up=True, silence=True)


def encodings(random: Random) -> Broken:
    path, body = sound(random)
    text = body.decode()
    kinds = (
        text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + body, gzip.compress(body),
        body.replace(b"w", b"\xff"), body.replace(b"w", b"\xc0\xaf"), body.replace(b"w", b"\xed\xa0\x80"),
        body.replace(b"w", b"\\ud800"), body.replace(b"w", b"\x00"), body.replace(b"w", b"\\u12"), body + b"\x00",
        body.replace(b'"', b"'"), b"\x80\x03}q\x00.", b"question=w0",
    )
    headers = random.choice((b"", b"Content-Encoding: gzip\r\n"))
    headers += b"Content-Type: application/json" + random.choice((b"", b"; charset=utf-16", b";;;")) + b"\r\n"
    return Broken("encodings", request(random.choice(kinds), path, headers=headers))


def types(random: Random) -> Broken:
    path, body = sound(random)
    kind = random.choice((b"text/plain", b"", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x",
                          b"application/jsonx", b"\xff\xfe", b"application/xml"))
    return Broken("types", request(body, path, headers=b"Content-Type: " + kind + b"\r\n"))


def headers(random: Random) -> Broken:
    path, body = sound(random)
    json_type = b"Content-Type: application/json\r\n"
    hosts = (b"", b"Host: a\r\nHost: b\r\n", b"Host: evil.example\r\n", b"Host:\r\n",
             b"Host: localhost.evil.example\r\n", b"Host: [::1\r\n", b"Host: \xff\r\n", b"Host: evil@localhost:1\r\n")
    if random.random() < 0.4:
        return Broken("headers", request(body, path, host=random.choice(hosts)))
    more = random.choice((
        b"X: " + b"a" * BOMB + b"\r\n", b"".join(b"X%d: y\r\n" % number for number in range(20_000)), b"no colon\r\n",
        b"X : y\r\n", b"X: \x00\r\n", b"\x80: y\r\n", b": y\r\n", b"X: y\n\n", b"a" * BOMB + b": y\r\n",
        b"X: \x0b\r\n", b"(): y\r\n",
    ))
    return Broken("headers", request(body, path, headers=json_type + more))


def methods(random: Random) -> Broken:
    path, body = sound(random)
    method = random.choice((b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"HEAD", b"post",
                            b"A" * 5000, b"P\xffST", b"", b"BREW"))
    return Broken("methods", request(body, path, method=method), hangs_up=True, silence=method == b"HEAD")


def paths(random: Random) -> Broken:
    path = random.choice((
        "/v1/answer%00", "/v1/answers", "//v1/answer", "/v1/../v1/answer", "/v1/passages/", "/v1/passages/--5",
        "/v1/passages/" + "9" * 19, "/v1/passages/-" + "9" * 18, "/v1/passages/%ff%fe", "/v1/passages/%00",
        "/v1/passages/..%2f..%2fetc%2fpasswd", "/v1/passages/%C2%B2", "/v1/passages/" + "a" * 5000, "/" + "a" * BOMB,
        "http://evil.example/v1/answer", "*", "?", "/%", "/%zz", "/v1/passages/%ED%A0%80", "/v1/passages/1e5",
    ))
    method = b"GET" if "passages" in path else random.choice((b"GET", b"POST"))
    return Broken("paths", request(b"", path, method=method), MAY_PASS)


def values(random: Random) -> Broken:
    path = random.choice(PATHS)
    texts = (
        '{"question": "w0", "question": 5}', '{"question": ""}', '{"question": []}', '{"question": ["w0", ""]}',
        '{"question": "w0", "top_k": 0}', '{"question": "w0", "top_k": 1e400}', '{"question": "w0", "top_k": true}',
        '{"question": "w0", "top_m": 9999}', '{"question": "w0", "passages": []}',
        '{"question": "w0", "passages": [[]]}',
        '{"question": "w0", "passages": [{"id": "no such"}]}', '{"question": "w0", "passages": [9223372036854775808]}',
        '{"question": "w0", "passages": [true]}', '{"question": "w0", "min_log_probability": NaN}',
        '{"question": "w0", "min_log_probability": 1}', '{"question": "w0", "extra": 1}', "[" * 100_000,
        '{"question": ' + "[" * 5000 + "]" * 5000 + "}", '{"question": "' + "a " * 15_000 + '"}', "null", "5", '"w0"',
        "",
        '{"question": "' + "w1 " * 6000 + '"}', '{"query": "w0"}', '{"query": "w0", "documents": "w1"}',
        '{"query": "w0", "documents": []}', '{"query": "w0", "documents": [null]}', '{"query": 5, "documents": ["a"]}',
        '{"query": "w0", "documents": ["w1"], "top_n": 0}', '{"messages": []}',
        '{"messages": [{"role": "system", "content": "w0"}]}',
        '{"messages": [{"role": "user", "content": null}]}', '{"messages": "w0"}', '{"messages": [{"content": "w0"}]}',
        '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', '{"question": ' + "9" * 5000 + "}",
        '{"question": "w0", "passages": [' + "1," * 1500 + "1]}", '{"' + "k" * BOMB + '": 1}', '{"question": "   "}',
        '{"question": "w0", "passages": [{"text": 5}]}', '{"question": "w0", "passages": [{"id": 1.5}]}',
    )
    return Broken("values", request(random.choice(texts).encode(), path))


def damaged_json(random: Random) -> Broken:
    path, body = sound(random)
    damaged = bytearray(body)
    for _ in range(random.choice((1, 2, 3))):
        place = random.randrange(len(damaged))
        choice = random.random()
        if choice < 0.4:
            damaged[place] = random.randrange(256)
        elif choice < 0.7:
            del damaged[place : place + random.randint(1, 5)]
        else:
            damaged[place:place] = random.choice((b"{", b"]", b'"', b",", b"\\", b"\x00", b"1e999", b"null"))
        if not damaged:
            break
    return Broken("damaged JSON", request(bytes(damaged), path), MAY_PASS)


def pipelined(random: Random) -> Broken:
    """A sound one first, which keeps the connection open, and something behind it."""
    _, body = sound(random)
    first = request(b"", "/healthz", method=b"GET").replace(b"Connection: close\r\n", b"")
    behind = (b"\x00\x01", b"GET", b"GET / HTTP/9.9\r\n\r\n",
              request(body + b"x", length=b"1"), first[:-2] + b"X\r\n\r\n", b"\r\n\r\n\xff")
    hangs_up = random.random() < 0.5
    return Broken("pipelined", first + random.choice(behind), MAY_PASS, hangs_up=hangs_up, silence=True)


def too_much(random: Random) -> Broken:
    """More than the body may have."""
    path, _ = sound(random)
    return Broken("too much", request(b" " * (3 << 20), path))


KINDS: dict[str, tuple[int, Callable[[Random], Broken]]] = {
    maker.__name__: (weight, maker) for weight, maker in (
        (10, cut), (2, stalled), (20, flipped), (8, noise), (15, chunked), (8, lengths), (8, encodings), (4, types),
        (10, headers), (6, methods), (6, paths), (20, values), (20, damaged_json), (5, pipelined), (1, too_much),
    )
}


def broken(seed: int) -> Broken:
    """The one of a seed."""
    random = Random(f"broken {seed}")
    ((_, maker),) = random.choices(list(KINDS.values()), [weight for weight, _ in KINDS.values()])
    return maker(random)
