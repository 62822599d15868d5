"""The reference torch model as a transformers model, with its `generate`: any decoding strategy, no cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils.generic import ModelOutput

from glimmer_export.exporter.huggingface.configuration import GlimmerConfig
from glimmer_export.exporter.stages import GlimmerModel, Masked
from glimmer_export.exporter.stages.relative_bias import RelativeBias

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
        model = self._model[0]
        if passage_input_ids is None:
            raise ValueError("passage_input_ids (batch, passages, tokens) is missing")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        passage_mask = torch.ones_like(passage_input_ids) if passage_attention_mask is None else passage_attention_mask
        question, passages = Masked(input_ids, mask), Masked(passage_input_ids, passage_mask)
        encoded = model.encode_texts(question, passages, model.config.num_selected)
        return GlimmerEncoderOutput(encoded.states, encoded.mask, encoded.scores, encoded.selected)


class GlimmerForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # transformers' types are not read
    """LUMEN, GLIMMER, MemoryFiD or FiD, as `config.architecture` says; its state dict is the checkpoint's."""

    config_class = GlimmerConfig
    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, config: GlimmerConfig) -> None:
        super().__init__(config)
        self._settings = config.checkpoint_config
        model = GlimmerModel(self._settings)
        for name, part in model.named_children():
            self.add_module(name, part)
        self._glimmer = [model]
        self._encoder = [GlimmerEncoder(model)]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What no file holds is computed again: transformers 5 makes a model without values, and fills in weights."""
        if isinstance(module, RelativeBias):
            module.compute_buckets(module.buckets.device)
        else:
            super()._init_weights(module)

    @property
    def reference(self) -> GlimmerModel:
        """The reference torch model whose weights these are."""
        return self._glimmer[0]

    def get_encoder(self, *_: Any, **__: Any) -> GlimmerEncoder:
        """The part that `generate` runs once."""
        return self._encoder[0]

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding, which encoders and decoder share."""
        embedding: nn.Module = self._glimmer[0].shared
        return embedding

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        passage_input_ids: Tensor | None = None,
        passage_attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: GlimmerEncoderOutput | None = None,
        labels: Tensor | None = None,
        **_options: Any,
    ) -> Seq2SeqLMOutput:
        """Logits (b, t, vocab_size) of decoder_input_ids (b, t), and the loss if there are `labels` (b, t).

        Labels of -100 count for nothing; without decoder_input_ids they are shifted right to make them, but not in
        MemoryFiD, whose decoder reads the question first. With encoder_outputs the inputs before them are not read.
        Raises ValueError if there is nothing to decode.
        """
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("input_ids (batch, tokens) or encoder_outputs is missing")
            encoder_outputs = self._encoder[0](input_ids, attention_mask, passage_input_ids, passage_attention_mask)
        if decoder_input_ids is None:
            if labels is None or self._settings.shape.traits.prefixes_decoder:
                raise ValueError("decoder_input_ids (batch, tokens), or labels if no question precedes, is missing")
            decoder_input_ids = self._shifted(labels)
        states, mask = encoder_outputs.last_hidden_state, encoder_outputs.attention_mask
        assert states is not None
        assert mask is not None
        logits = self._glimmer[0].decode(decoder_input_ids, states, mask)
        output: dict[str, Any] = {"logits": logits, "encoder_last_hidden_state": states}
        if labels is not None:
            output["loss"] = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
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

    def _shifted(self, labels: Tensor) -> Tensor:
        shifted = labels.new_full(labels.shape, self._settings.decoder_start_token_id)
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self._settings.pad_token_id)
        return shifted


PASSAGES = ("passage_input_ids", "passage_attention_mask")
IGNORED = -100
"""A label that cross-entropy leaves out."""
