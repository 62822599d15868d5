"""The tokenizer of a new checkpoint: found beside the weights or named by the user, always as a `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import MissingExtraError, TokenizerError, is_there, read_limited
from glimmer_export.runtime.contract.files import MAX_TOKENIZER_BYTES
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

__all__ = [
    "FAST", "SENTENCEPIECE", "find_tokenizer", "open_sentencepiece", "sentencepiece_errors", "without_special_tokens",
]

FAST, SENTENCEPIECE = "tokenizer.json", "spiece.model"
SPACE = "\u2581"
SENTENCEPIECE_RAISES = (RuntimeError, OSError, IndexError, SyntaxError, MemoryError, UnicodeDecodeError)
NUM_SENTINELS = 100
"""T5's `<extra_id_0>` to `<extra_id_99>`, which its sentencepiece model does not hold."""


def find_tokenizer(source: Path | None, explicit: Path | None) -> bytes | None:
    """Content of the `tokenizer.json` to write, None where there is no tokenizer.

    `explicit` wins; a name that ends in `.model` is a sentencepiece model, anything else a tokenizer.json. Otherwise
    the `tokenizer.json` of the directory `source` is taken, or its `spiece.model`.

    Raises TokenizerError where a file is missing or unreadable; what a tokenizer.json holds is checked when a
    checkpoint is written.
    """
    beside = [source / name for name in (FAST, SENTENCEPIECE)] if source else []
    path = explicit or next((candidate for candidate in beside if is_there(candidate)), None)
    if path is None:
        return None
    content = _read(path)
    return _from_sentencepiece(path) if path.suffix == ".model" else content


def without_special_tokens(content: bytes) -> bytes:
    """A tokenizer.json that adds nothing to a text: for a model whose texts have no EOS, as transformers reads it.

    The runtime adds EOS itself, by the model's config, and a file that is none is for the writer's check to name.
    """
    try:
        tokenizer = parse_json(content.decode())
        if not isinstance(tokenizer, dict) or tokenizer.get("post_processor") is None:
            return content
        return json.dumps({**tokenizer, "post_processor": None}, ensure_ascii=False).encode()
    except ValueError:  # half a surrogate pair too, which JSON can name and UTF-8 cannot hold
        return content


def open_sentencepiece(path: Path) -> Any:
    """The sentencepiece model itself; raises MissingExtraError without the library, TokenizerError for another file."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path}", expected="sentencepiece", found=str(error), fix="install glimmer-export[export]"
        ) from None
    content = _read(path)
    with sentencepiece_errors(path):
        model = SentencePieceProcessor(model_proto=content)
        if model.get_piece_size():
            return model
    raise _no_sentencepiece(path, "no pieces")  # an empty file is no error to the library


def sentencepiece_errors(path: Path) -> LibraryErrors:
    """For a call of sentencepiece, whose statuses come as these: TokenizerError about the file `path`."""
    return LibraryErrors(
        lambda kind: issubclass(kind, SENTENCEPIECE_RAISES), lambda error: _no_sentencepiece(path, first_line(error))
    )


def _no_sentencepiece(path: Path, found: str) -> TokenizerError:
    return TokenizerError(f"tokenizer {path}", expected="a sentencepiece model", found=found, fix="copy it again")


def _read(path: Path) -> bytes:
    return read_limited(
        path, limit_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError, subject=f"tokenizer {path}",
        expected=f"a {FAST} or {SENTENCEPIECE}", fix="name an existing file",
    )


def _from_sentencepiece(path: Path) -> bytes:
    """Convert T5's sentencepiece model: its pieces, the sentinels, its table for normalising text, EOS at the end."""
    model = open_sentencepiece(path)
    try:
        from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at run time
    except ImportError as error:
        raise MissingExtraError(
            f"converting {path}", expected="protobuf", found=str(error), fix="install glimmer-export[export]"
        ) from None
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    from glimmer_export.runtime.charsmap import OUTER_SPACES
    from glimmer_export.runtime.tokenizer_limits import TokenizerErrors

    def refused(reason: str) -> TokenizerError:
        return TokenizerError(
            f"tokenizer {path}", expected="a model that a tokenizer can be made of", found=reason, fix="copy it again"
        )

    with sentencepiece_errors(path):
        proto = ModelProto.FromString(model.serialized_model_proto())
    training = proto.trainer_spec
    if training.model_type != training.UNIGRAM or min(model.eos_id(), model.unk_id()) < 0:
        found = training.ModelType.Name(training.model_type).lower()
        raise TokenizerError(
            f"tokenizer {path}", expected="a unigram model with </s> and <unk>, as T5's is",
            found=f"{found}, </s> {model.eos_id()}, <unk> {model.unk_id()}",
            fix="make a tokenizer.json of it, and name that",
        )
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(NUM_SENTINELS))]
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces] + [(sentinel, 0.0) for sentinel in sentinels]
    if not all(isinstance(piece, str) for piece, _ in vocabulary):  # protobuf gives bytes then
        raise refused("a piece that is not UTF-8")
    with TokenizerErrors(refused, reads=True):
        tokenizer = Tokenizer(models.Unigram(vocabulary, model.unk_id(), training.byte_fallback))
    # Strip would also drop what is white space to Unicode alone.
    steps: list[Any] = [normalizers.Replace(Regex(OUTER_SPACES), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if table := proto.normalizer_spec.precompiled_charsmap:
        with TokenizerErrors(refused, reads=True):
            steps.insert(0, normalizers.Precompiled(table))
    tokenizer.normalizer = normalizers.Sequence(steps)
    prepend = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend)
    with sentencepiece_errors(path):
        eos = model.id_to_piece(model.eos_id())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, model.eos_id())]
    )
    special = [number for number in range(len(proto.pieces)) if model.is_control(number) or model.is_unknown(number)]
    with sentencepiece_errors(path):
        pieces = [*(model.id_to_piece(number) for number in special), *sentinels]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces])
    content: str = tokenizer.to_str()
    return content.encode("utf-8")
