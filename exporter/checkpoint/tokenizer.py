"""The tokenizer of a new checkpoint: found beside the weights or named by the user, always as a `tokenizer.json`.

Whether the two that stand beside a Hugging Face T5 are one, `spiece.model` and `tokenizer.json`, is checked; and
`tokenizer_config.json` and `special_tokens_map.json` say what transformers wants to know beside a tokenizer.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime.contract import MissingExtraError, TokenizerError, is_there, read_limited
from glimmer_export.runtime.contract.files import MAX_TOKENIZER_BYTES
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = [
    "FAST", "SENTENCEPIECE", "check_agreement", "find_tokenizer", "open_sentencepiece", "sentencepiece_errors",
    "tokenizer_configs", "tokenizer_for", "without_special_tokens",
]  # fmt: skip

FAST, SENTENCEPIECE = "tokenizer.json", "spiece.model"
SPACE = "\u2581"
SENTENCEPIECE_RAISES = (RuntimeError, OSError, IndexError, SyntaxError, MemoryError, UnicodeDecodeError)
NUM_SENTINELS = 100
"""T5's `<extra_id_0>` to `<extra_id_99>`, which its sentencepiece model does not hold."""


def find_tokenizer(source: Path | None, explicit: Path | None) -> bytes | None:
    """Content of the `tokenizer.json` to write, None if there is no tokenizer.

    `explicit` wins; a name that ends in `.model` is a sentencepiece model, anything else a tokenizer.json. Otherwise
    the `tokenizer.json` of the directory `source` is taken, or its `spiece.model`.

    Raises TokenizerError if a file is missing or unreadable; what a tokenizer.json holds is checked when a
    checkpoint is written.
    """
    beside = [source / name for name in (FAST, SENTENCEPIECE)] if source else []
    path = explicit or next((candidate for candidate in beside if is_there(candidate)), None)
    if path is None:
        return None
    content = _read(path)
    return _from_sentencepiece(path) if path.suffix == ".model" else content


def tokenizer_for(config: CheckpointConfig, content: bytes | None) -> bytes | None:
    """A tokenizer.json as a model of this config reads its texts: without EOS if none of them has one."""
    # Of a joined question and passage, passage_eos alone says what ends the text.
    separate = config.question_layout == "block" and config.question_eos
    return content if content is None or config.passage_eos or separate else without_special_tokens(content)


def without_special_tokens(content: bytes) -> bytes:
    """A tokenizer.json that adds nothing to a text: for a model whose texts have no EOS, as transformers reads it.

    The runtime adds EOS itself, by the model's config, and what is no tokenizer is for the writer's check to name.
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


TEXTS = (
    "question: when did the two brothers build their first aeroplane? title: Aviation context: They tested a glider",
    "in 1902, and on 17 December 1903 flew 260 m in 59 seconds; the engine, of 12 hp, was made in their own workshop.",
    "It's “quoted” — with dashes, 'single quotes', a semicolon; an ellipsis… and (brackets) [of both] {kinds}.",
    "The café's naïve façade cost €1,234.56 (£1,000), 37 °C, 50% off, №7, ½ cup, x² + y² ≠ z³.",
    "Der Fluß fließt über große Steine. L'été où j'étais à Besançon. Cuáles años? Românește, își, ţară.",
    "https://example.org/wiki/T5_(model)?a=1&b=2#c, user.name+tag@example.com, C:\\temp\\file.txt, f(x)=x_1^{-2}",
    "two  spaces,\ta tab,\na line and\u00a0a hard space",
    "Tie\u0302\u0301ng Vie\u0323\u0302t, e\u0301te\u0301 o\u0328\u0304, a\u0308\u0304 \u1112\u1161\u11ab, \u2460\u0301",
    "\ufeffa byte order mark, zero\u200bwidth\u200cspaces, marks\u200e of direction, and\u200d\u200f\u200b\ufeff",
    "ﬁ and ﬀ ligatures, \uff26\uff35ll width \uff11\uff12, soft\u00adhyphen",
    "日本語のテキスト, русский текст, ελληνικά, עברית, हिन्दी, 🎉 and ☃",
    "pneumonoultramicroscopicsilicovolcanoconiosis ANTIDISESTABLISHMENTARIANISM iPhone O'Neill 3rd 1990s U.S.A.",
)
"""Text of many kinds, without special tokens: what separates tokenizers that were trained or converted differently."""


def check_agreement(directory: Path) -> None:
    """Compare the two, if a directory has both: every piece's id, and the tokens of texts.

    The tokenizer.json is read as the runtime reads it. They may differ if a special token is spelt out in a text;
    and some thousand tokens into a text, where sentencepiece's sums no longer tell two ways to cut a word apart. Raises
    TokenizerError if they differ elsewhere, or if one of them cannot be read.
    """
    from glimmer_export.runtime.text import read_tokenizer

    fast_path, slow_path = directory / FAST, directory / SENTENCEPIECE
    if not (is_there(fast_path) and is_there(slow_path)):
        return
    slow = open_sentencepiece(slow_path)
    fast = read_tokenizer(fast_path, 1 << 24, subject=f"tokenizer {fast_path}", fix="copy it again")
    for number in range(slow.get_piece_size()):
        with sentencepiece_errors(slow_path):
            piece = slow.id_to_piece(number)
        if fast.piece(number) != piece:
            raise _differ(directory, f"{number} is {piece!r} in one, {fast.piece(number)!r} in the other")
    for text in TEXTS:
        with sentencepiece_errors(slow_path):
            theirs = slow.encode(text)
        ours = fast.encode(text)
        if ours.ids != theirs:
            pairs = zip(ours.ids, theirs, strict=False)
            place = next((place for place, pair in enumerate(pairs) if len({*pair}) > 1), 0)
            cut = slice(max(0, place - 1), place + 3)
            pieces = [slow.id_to_piece(number) for number in theirs[cut]]
            raise _differ(directory, f"{pieces} in one, {ours.tokens[cut]} in the other, of {text[:60]!r}")


def _differ(directory: Path, found: str) -> TokenizerError:
    return TokenizerError(
        f"tokenizer {directory}", expected=f"{SENTENCEPIECE} and {FAST} to be one tokenizer", found=found,
        fix="name the one that the model was trained with by --tokenizer",
    )


def tokenizer_configs(content: bytes, config: CheckpointConfig) -> dict[str, dict[str, Any]]:
    """The content of both files, by name, for a tokenizer.json that has been checked.

    Padding, EOS and unknown token are those that the model's own config and the tokenizer have ids for; with them
    `AutoTokenizer` pads, and gives what the model's `generate` takes and no more. A text is cut, if that is asked
    for, to the model's longest.
    """
    tokenizer = json.loads(content)
    pieces = _pieces(tokenizer)
    unknown = tokenizer["model"].get("unk_token") or pieces.get(tokenizer["model"].get("unk_id"))
    tokens = {
        "pad_token": pieces.get(config.pad_token_id),
        "eos_token": pieces.get(config.eos_token_id),
        "unk_token": unknown,
    }
    special = {name: token for name, token in tokens.items() if token is not None}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max(config.question_length, config.passage_length),
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer_config.json": settings, "special_tokens_map.json": special}


def _pieces(tokenizer: dict[str, Any]) -> dict[int, str]:
    """The token of each id: those of the model's vocabulary, and those that were added."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        pieces = {number: piece for piece, number in vocabulary.items()}
    else:
        pieces = {number: piece for number, (piece, _score) in enumerate(vocabulary)}
    return pieces | {token["id"]: token["content"] for token in tokenizer.get("added_tokens", ())}
