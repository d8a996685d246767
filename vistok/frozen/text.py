"""Text encoders, frozen: captions -> features that encoders, decoders and generators read.

Loaded through `transformers`: CLIP's text tower (TA-TiTok reads its last layer after the final
norm; MaskGen the one before the last, and a pooled vector), T5 (TexTok; LlamaGen, on the right of
its padding), and causal language models, whose texts are padded on the left (Instella-T2I reads all
layers). Features of a text never change, so they are kept.
Letters: B texts, K layers, M positions, C width, P width of pooled features.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config, ConfigError
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.frozen.files import MissingWeights, check_loaded
from vistok.frozen.network import Frozen
from vistok.storage.hub import download, hub_id, local_path, nowhere
from vistok.storage.weights import content_sha256

_KEPT = 2**30  # bytes of features that are kept, beside the network: 1,024 texts of T5-XL
_FETCHED = ("*.json", "*.txt", "*.model", "*.safetensors")  # of a repository of the hub
_TOGETHER = 16  # texts that go in at once, always: products of one shape give a text one result,
# whatever the others are, so that kept and fresh features are equal bit for bit


_Row = tuple[Tensor, Tensor, Tensor | None]  # features, mask and pooled features of a text


class TextEncoderConfig(Config):
    """A text encoder and the features that are taken from it."""

    network: Literal["clip", "t5", "causal"] = "clip"
    """causal: any causal language model, without its head."""
    path: str = "hf:openai/clip-vit-large-patch14-336"
    """A folder in `transformers` format, with safetensors weights and its tokenizer, or
    `hf:owner/name` of the hub."""
    layer: Literal["last", "penultimate", "all"] = "last"
    """last: after the final norm; penultimate: what enters the last block, without a norm; all:
    what each of the K blocks gives, the last after the final norm."""
    length: int = Field(default=77, ge=2, le=2**14)
    """M: texts are padded and cut to it."""
    pad_id: int | None = Field(default=None, ge=0)
    """Token that fills texts up; null: the tokenizer's own. open_clip, which TA-TiTok and MaskGen
    were trained with, fills with 0, and CLIP's features of padding depend on it."""
    padding: Literal["right", "left"] | None = None
    """Side of the padding; left: in front of the text, with features of 0, and T5 and CLIP still
    read the text from its first position on (LlamaGen's captions); null: right, and left for causal
    language models."""
    pooled: Literal["end", "projected"] | None = None
    """One vector [P] for each text besides; end: features of the end token (of a causal model the
    last token) after the final norm; projected: these by CLIP's text projection (MaskGen); null:
    none."""

    @model_validator(mode="after")
    def _projects(self) -> TextEncoderConfig:
        if self.pooled == "projected" and self.network != "clip":
            raise InputError(
                f"pooled=projected with network={self.network}: only CLIP has a text projection; "
                "use pooled=end, or network=clip"
            )
        return self

    @property
    def pads_left(self) -> bool:
        return self.padding == "left" or (self.padding is None and self.network == "causal")


class TextEncoder(Frozen):
    """Texts -> features of a frozen CLIP text tower or T5 encoder."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Raises MissingWeights, one line, if the library or the weights are not here."""
        self_name = f"{config.network}:{config.path}"
        try:
            import transformers
        except ImportError:
            raise MissingWeights(
                f"{self_name}: reading text needs transformers; pip install 'vistok[features]'"
            ) from None
        projects = config.pooled == "projected"
        kinds = {
            "clip": transformers.CLIPTextModelWithProjection
            if projects
            else transformers.CLIPTextModel,
            "t5": transformers.T5EncoderModel,
            "causal": transformers.AutoModel,
        }
        transformers.utils.logging.disable_progress_bar()
        try:
            # Nothing executable: safetensors only, and no code from the repository.
            folder = _folder(config.path)
            options = {"trust_remote_code": False, "local_files_only": True}
            text_tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            network, found = kinds[config.network].from_pretrained(
                folder,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:400]
            raise MissingWeights(
                f"{self_name}: not available ({reason}); download the repository and give its "
                "folder as text.path"
            ) from None
        check_loaded(network, folder.glob("*.safetensors"), self_name)
        if projects and "text_projection.weight" in found["missing_keys"]:
            raise MissingWeights(
                f"{self_name}: no text_projection.weight, which text.pooled=projected needs; use "
                "the whole CLIP, or pooled=end"
            )
        super().__init__(self_name, content_sha256(network.state_dict()))
        self.config, self.text_tokenizer, self.network = config, text_tokenizer, network
        if config.network == "causal":
            text_tokenizer.padding_side = "left" if config.pads_left else "right"
            if text_tokenizer.pad_token is None:  # no position looks at it
                text_tokenizer.pad_token = text_tokenizer.eos_token
        self._kept: OrderedDict[str, _Row] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept: threads may share an encoder
        self.freeze()

    def record(self) -> dict[str, Any]:
        """{"config", "sha256"}, which whatever is made of its features keeps."""
        return {"config": self.config.model_dump(mode="json"), "sha256": self.sha256}

    @property
    def dim(self) -> int:
        """Width C of the features."""
        return self.network.config.hidden_size

    @property
    def pooled_dim(self) -> int | None:
        """Width P of the pooled features; None if there are none."""
        if self.config.pooled is None:
            return None
        projected = self.config.pooled == "projected"
        return self.network.config.projection_dim if projected else self.dim

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B texts -> features [B, M, C] fp32, of all layers [B, K, M, C], and which positions are
        text [B, M] bool.

        The end token counts as text, padding does not; '' is a text like any other. Features of
        padding on the left, and of a causal model's, are 0.
        """
        condition = self.condition(texts)
        return condition.text, condition.text_mask

    @torch.no_grad()
    def condition(self, texts: Sequence[str]) -> Condition:
        """B texts -> their features: `text` and `text_mask` as `forward` gives them, and `pooled`
        [B, P] fp32 if the config asks for it."""
        with self._lock:
            rows = self._rows(texts)
        features, mask, pooled = zip(*rows, strict=True)
        return Condition(
            text=torch.stack(features),
            text_mask=torch.stack(mask),
            pooled=None if self.config.pooled is None else torch.stack(pooled),
        )

    def _rows(self, texts: Sequence[str]) -> list[_Row]:
        """Features, mask and pooled features of each text, kept ones where there are any."""
        device = next(self.network.parameters()).device
        if self._kept and next(iter(self._kept.values()))[0].device != device:
            self._kept.clear()  # the network has moved
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if new:
            self._kept.update(zip(new, self._encode(new), strict=True))
        rows = [self._kept[text] for text in texts]
        for text in texts:
            self._kept.move_to_end(text)
        most = max(_KEPT // (4 * rows[0][0].numel()), 1) if rows else len(self._kept)
        while len(self._kept) > most:
            self._kept.popitem(last=False)
        return rows

    def _encode(self, texts: list[str]) -> list[_Row]:
        made: list[_Row] = []
        for start in range(0, len(texts), _TOGETHER):
            part = texts[start : start + _TOGETHER]
            whole = part + [""] * (_TOGETHER - len(part))
            made += self._features(whole)[: len(part)]
        return made

    def _features(self, texts: list[str]) -> list[_Row]:
        read = self.text_tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.config.length,
            return_tensors="pt",
        )
        device = next(self.network.parameters()).device
        move = lambda name: read[name].to(device, non_blocking=True)
        ids, mask = move("input_ids"), move("attention_mask")
        if self.config.pad_id is not None:
            ids = ids.masked_fill(mask == 0, self.config.pad_id)
        with torch.autocast(device.type, enabled=False):
            # CLIP attends to its padding, as it did in training: no mask is given. T5's mask makes
            # transformers wait for the device: it asks whether any text has padding.
            given = {} if self.config.network == "clip" else {"attention_mask": mask}
            out = self.network(input_ids=ids, output_hidden_states=True, **given)
            last = out.last_hidden_state
            pooled = self._pooled(last, mask)
        if self.config.layer == "all":
            chosen = torch.stack(out.hidden_states[1:], dim=1)
        else:
            chosen = last if self.config.layer == "last" else out.hidden_states[-2]
        seen = mask.bool()
        if self.config.pads_left and self.config.network != "causal":
            turned = lambda row, count, axis: row.roll(len(mask[0]) - int(count), axis)
            counts = seen.sum(1)
            chosen = torch.stack([turned(f, n, -2) for f, n in zip(chosen, counts, strict=True)])
            seen = torch.stack([turned(m, n, 0) for m, n in zip(seen, counts, strict=True)])
        if self.config.pads_left or self.config.network == "causal":
            # Padding on the left of a causal model sees nothing, which may be nan.
            shown = seen.view(len(seen), *[1] * (chosen.ndim - 3), -1, 1)
            chosen = torch.where(shown, chosen, 0.0)
        # Copies: a row that is kept must not keep the others.
        copies = lambda rows: [None] * len(seen) if rows is None else [row.clone() for row in rows]
        return list(zip(copies(chosen.float()), copies(seen), copies(pooled), strict=True))

    def _pooled(self, last: Tensor, mask: Tensor) -> Tensor | None:
        """Features [B, P] of the last token that is text, projected if the config says so."""
        if self.config.pooled is None:
            return None
        # The place of the last 1 of each row, on whichever side the padding is.
        places = torch.arange(mask.shape[1], device=mask.device)
        end = (mask * (places + 1)).argmax(1)
        found = last[torch.arange(len(last), device=last.device), end].float()
        if self.config.pooled == "projected":
            found = self.network.text_projection(found)
        return found


class BlankText(nn.Module):
    """Replaces a text encoder where only shapes count (a dry run): its features are zeros."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.length, self.dim = length, dim

    def condition(self, texts: Sequence[str]) -> Condition:
        """As TextEncoder's, without pooled features; every position counts as text."""
        shape = (len(texts), self.length)
        mask = torch.ones(shape, dtype=torch.bool)
        return Condition(text=torch.zeros(*shape, self.dim), text_mask=mask)


def _folder(path: str) -> Path:
    """The folder of a path or of an id of the hub; ConfigError if it is not there."""
    hub = hub_id(path)
    if hub is not None:
        return download(hub, _FETCHED)
    folder = local_path(path)
    if not folder.is_dir():
        raise ConfigError(nowhere(path, "expected a folder in transformers format"))
    return folder
