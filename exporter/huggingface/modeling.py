"""The torch model as a transformers model: `generate` by any decoding strategy, without cache, and its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils.generic import ModelOutput

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.huggingface.configuration import GlimmerConfig
from glimmer_export.exporter.stages import GlimmerModel, Masked
from glimmer_export.exporter.stages.model import Encoded
from glimmer_export.exporter.stages.relative_bias import RelativeBias
from glimmer_export.exporter.training.batch import IGNORED, Batch
from glimmer_export.exporter.training.loss import LossSettings, decoder_rows, losses_of

__all__ = ["GlimmerEncoderOutput", "GlimmerForConditionalGeneration"]


@dataclass
class GlimmerEncoderOutput(ModelOutput):  # type: ignore[misc]  # transformers' types are not read
    """What the decoder reads of a question's passages.

    last_hidden_state (b, s, d_model) and attention_mask (b, s); scores (b, k), -inf for absent passages, and the places
    `selected` (b, m) in retrieval order where the architecture ranks.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    scores: Tensor | None = None
    selected: Tensor | None = None


class GlimmerEncoder(nn.Module):
    """Question and passages -> what the decoder reads (GLIMMER paper, section 3), every layer in full.

    Holds no weights of its own: they are the model's.
    """

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self._model = [model]  # in a list, so that its parameters are not registered twice

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        passage_input_ids: Tensor | None = None,
        passage_attention_mask: Tensor | None = None,
        **_options: Any,
    ) -> GlimmerEncoderOutput:
        """input_ids (b, n), passage_input_ids (b, k, n_p) and their masks, 1 where a token counts (None: no padding).

        Where the config joins question and passage in one text, that text is passage_input_ids and the question is not
        read. Passages are required, whatever the signature says: transformers passes everything by name. Raises
        ValueError without them.
        """
        question, passages = _masked(input_ids, attention_mask), _passages(passage_input_ids, passage_attention_mask)
        encoded = self._model[0].encode_texts(question, passages, self._model[0].config.num_selected)
        return GlimmerEncoderOutput(encoded.states, encoded.mask, encoded.scores, encoded.selected)


class GlimmerForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # transformers' types are not read
    """LUMEN, GLIMMER, MemoryFiD or FiD, as `config.architecture` says; its state dict is the checkpoint's.

    `loss_settings` says what `forward` makes a loss of; its defaults are the GLIMMER paper's.
    """

    config_class = GlimmerConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _is_stateful = False

    def __init__(self, config: GlimmerConfig) -> None:
        super().__init__(config)
        for name, part in GlimmerModel(config.checkpoint_config).named_children():
            self.add_module(name, part)
        self.loss_settings = LossSettings()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What no file holds is computed: transformers 5 makes a model without values, and fills in weights.

        A table of positions that no file holds either, as in a model of a config alone, starts as T5's does.
        """
        if isinstance(module, RelativeBias):
            module.compute_buckets(module.buckets.device)
            nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
        else:
            super()._init_weights(module)

    @property
    def _settings(self) -> CheckpointConfig:
        settings: CheckpointConfig = self.config.checkpoint_config
        return settings

    @property
    def reference(self) -> GlimmerModel:
        """The torch model whose parts are the modules registered here, whoever has put them here.

        T5's dropout is set on it, as no config holds the rate: `model.reference.set_dropout(0.1)`.
        """
        return GlimmerModel.of_children(self, self._settings)

    def get_encoder(self, *_: Any, **__: Any) -> GlimmerEncoder:
        """The part that `generate` runs once."""
        return GlimmerEncoder(self.reference)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding, which encoders and decoder share."""
        embedding: nn.Module = self.shared
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another in its place."""
        self.shared = value

    def get_output_embeddings(self) -> nn.Module | None:
        """The projection to the vocabulary, or None if the token embedding is that too."""
        return getattr(self, "lm_head", None)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Put another in its place."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        passage_input_ids: Tensor | None = None,
        passage_attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: GlimmerEncoderOutput | None = None,
        labels: Tensor | None = None,
        *,
        num_items_in_batch: Tensor | int | None = None,
        **_options: Any,
    ) -> Seq2SeqLMOutput:
        """Logits (b, t, vocab_size) of decoder_input_ids (b, t), and the loss if there are `labels` (b, t).

        Labels of -100 count for nothing. Without decoder_input_ids the labels are shifted right to make them; in
        MemoryFiD the question comes first, and the logits are those of the labels alone, 0 where a label is -100. With
        encoder_outputs the passages are not read.

        The loss is training's, by `loss_settings`: language modelling, a mean over answer tokens, and if the model
        ranks the ranking loss, a mean over questions. `num_items_in_batch` is transformers' Trainer's: the answer
        tokens of all batches of a step, whose losses it adds up. Each is then its share of the tokens.

        Raises ValueError if there is nothing to decode, or no passage to take a ranking loss from.
        """
        model = self.reference
        question = None if input_ids is None else _masked(input_ids, attention_mask)
        passages = None
        if encoder_outputs is None:
            if question is None:
                raise ValueError("input_ids (batch, tokens) or encoder_outputs is missing")
            passages = _passages(passage_input_ids, passage_attention_mask)
            encoded = model.encode_texts(question, passages, model.config.num_selected)
        else:
            encoded = _encoded(encoder_outputs)
        wanted = labels
        if decoder_input_ids is None:
            prefixes = model.config.shape.traits.prefixes_decoder
            if labels is None or (prefixes and question is None):
                raise ValueError(
                    "decoder_input_ids (batch, tokens) is missing, and what they are made of: labels, and input_ids if "
                    "the decoder reads the question first"
                )
            decoder_input_ids, wanted = decoder_rows(model, question or _nothing(labels), labels)
        logits = model.decode(decoder_input_ids, encoded.states, encoded.mask, decoder_attention_mask)
        output: dict[str, Any] = {"logits": logits, "encoder_last_hidden_state": encoded.states}
        if labels is not None and wanted is not None:
            if passages is None:
                passages = Masked(encoded.states.unsqueeze(1), encoded.mask.unsqueeze(1))
                if model.config.shape.traits.selects and self.loss_settings.ranking_weight:
                    raise ValueError(
                        "the ranking loss is of passages: give passage_input_ids in place of encoder_outputs, or set "
                        "loss_settings to LossSettings(ranking_weight=0)"
                    )
            gold = torch.zeros(passages.mask.shape[:2], dtype=torch.bool, device=labels.device)
            batch = Batch(question or _nothing(labels), passages, labels, gold)
            losses = losses_of(model, batch, encoded, logits, wanted, self.loss_settings)
            share = 1 if num_items_in_batch is None else losses.tokens / num_items_in_batch
            output["loss"] = losses.total(self.loss_settings) * share
            output["logits"] = _of_labels(logits, wanted, labels)
        return Seq2SeqLMOutput(**output)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, encoder_outputs: GlimmerEncoderOutput | None = None, **kwargs: Any  # noqa: ARG002
    ) -> dict[str, Any]:
        """One step of `generate`: all decoder tokens so far, over what the encoder left.

        By the name `kwargs` transformers knows that `forward`'s other inputs may be given.
        """
        return {"decoder_input_ids": input_ids, "encoder_outputs": encoder_outputs}

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **options: Any) -> Any:
        """`GenerationMixin.generate` over question `inputs` (or input_ids) and passage_input_ids.

        A tokenizer's `token_type_ids` say nothing to a T5 and may stand beside them.
        In MemoryFiD the question stands in front of the answer in the decoder: rows are generated one by one, and what
        comes back is the answers, padded, behind the start token as for the others.
        """
        options["use_cache"] = False
        options.pop("token_type_ids", None)
        if not self._settings.shape.traits.prefixes_decoder:
            return super().generate(inputs, **options)
        inputs = options.pop("input_ids", None) if inputs is None else inputs
        if inputs is None:
            raise ValueError("input_ids (batch, tokens) is missing")
        mask = options.pop("attention_mask", torch.ones_like(inputs))
        passages = {name: options.pop(name) for name in PASSAGES if name in options}
        start = inputs.new_tensor([self._settings.decoder_start_token_id])
        answers: list[Tensor] = []
        for row in range(len(inputs)):
            question = inputs[row][mask[row] > 0]
            prefix = torch.cat([start, question])
            tokens = super().generate(
                question[None], decoder_input_ids=prefix[None], **options,
                **{name: values[row : row + 1] for name, values in passages.items()},
            )
            answers.extend(torch.cat([start, answer[len(prefix) :]]) for answer in tokens)
        return nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=self._settings.pad_token_id)


def _masked(ids: Tensor, mask: Tensor | None) -> Masked:
    return Masked(ids, torch.ones_like(ids) if mask is None else mask)


def _passages(ids: Tensor | None, mask: Tensor | None) -> Masked:
    if ids is None:
        raise ValueError("passage_input_ids (batch, passages, tokens) is missing")
    return _masked(ids, mask)


def _nothing(labels: Tensor) -> Masked:
    """A question of no tokens for each row of labels, whose answer does not depend on it."""
    return _masked(labels.new_zeros(len(labels), 0), None)


def _encoded(outputs: GlimmerEncoderOutput) -> Encoded:
    assert outputs.last_hidden_state is not None
    assert outputs.attention_mask is not None
    return Encoded(outputs.last_hidden_state, outputs.attention_mask)


def _of_labels(logits: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """Logits (b, n, vocab) that say `wanted` (b, n), in the places of labels (b, t): (b, t, vocab)."""
    if wanted is labels:
        return logits
    placed = logits.new_zeros(*labels.shape, logits.shape[-1])
    placed[labels != IGNORED] = logits[wanted != IGNORED]
    return placed


PASSAGES = ("passage_input_ids", "passage_attention_mask")
