"""Text encoders, frozen: captions -> features that encoders, decoders and generators read.

Loaded through `transformers`: CLIP's text tower (TA-TiTok reads its last layer after the final
norm; MaskGen the one before the last), T5 (TexTok), and causal language models, whose texts are
padded on the left (Instella-T2I reads all layers). Features of a text never change, so they are
kept. Letters: B texts, K layers, M positions, C width.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, ConfigError
from vistok.frozen.files import MissingWeights, check_loaded
from vistok.frozen.network import Frozen
from vistok.storage.hub import download, hub_id, local_path, nowhere
from vistok.storage.weights import content_sha256

_KEPT = 2**30  # bytes of features that are kept, beside the network: 1,024 texts of T5-XL
_FETCHED = ("*.json", "*.txt", "*.model", "*.safetensors")  # of a repository of the hub
_TOGETHER = 16  # texts that go in at once, always: products of one shape give a text one result,
# whatever the others are, so that kept and fresh features are equal bit for bit


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
        kinds = {
            "clip": transformers.CLIPTextModel,
            "t5": transformers.T5EncoderModel,
            "causal": transformers.AutoModel,
        }
        transformers.utils.logging.disable_progress_bar()
        try:
            # Nothing executable: safetensors only, and no code from the repository.
            folder = _folder(config.path)
            options = {"trust_remote_code": False, "local_files_only": True}
            text_tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            network = kinds[config.network].from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, **options
            )
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:400]
            raise MissingWeights(
                f"{self_name}: not available ({reason}); download the repository and give its "
                "folder as text.path"
            ) from None
        check_loaded(network, folder.glob("*.safetensors"), self_name)
        super().__init__(self_name, content_sha256(network.state_dict()))
        self.config, self.text_tokenizer, self.network = config, text_tokenizer, network
        if config.network == "causal":
            text_tokenizer.padding_side = "left"
            if text_tokenizer.pad_token is None:  # no position looks at it
                text_tokenizer.pad_token = text_tokenizer.eos_token
        self._kept: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept: threads may share an encoder
        self.freeze()

    @property
    def dim(self) -> int:
        """Width C of the features."""
        return self.network.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B texts -> features [B, M, C] fp32, of all layers [B, K, M, C], and which positions are
        text [B, M] bool.

        The end token counts as text, padding does not; '' is a text like any other. Features of a
        causal model's padding are 0.
        """
        with self._lock:
            rows = self._rows(texts)
        features, mask = zip(*rows, strict=True)
        return torch.stack(features), torch.stack(mask)

    def _rows(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Features and mask of each text, kept ones where there are any."""
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

    def _encode(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        made: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(texts), _TOGETHER):
            part = texts[start : start + _TOGETHER]
            whole = part + [""] * (_TOGETHER - len(part))
            made += self._features(whole)[: len(part)]
        return made

    def _features(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
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
        if self.config.layer == "all":
            chosen = torch.stack(out.hidden_states[1:], dim=1)
        else:
            chosen = last if self.config.layer == "last" else out.hidden_states[-2]
        if self.config.network == "causal":  # padding on the left sees nothing, which may be nan
            seen = mask.bool().view(len(mask), *[1] * (chosen.ndim - 3), -1, 1)
            chosen = torch.where(seen, chosen, 0.0)
        # Copies: a row that is kept must not keep the others.
        return [(f.clone(), m.clone()) for f, m in zip(chosen.float(), mask.bool(), strict=True)]


class BlankText(nn.Module):
    """Replaces a text encoder where only shapes count (a dry run): its features are zeros."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.length, self.dim = length, dim

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As TextEncoder's; every position counts as text."""
        shape = (len(texts), self.length)
        return torch.zeros(*shape, self.dim), torch.ones(shape, dtype=torch.bool)


def _folder(path: str) -> Path:
    """The folder of a path or of an id of the hub; ConfigError if it is not there."""
    hub = hub_id(path)
    if hub is not None:
        return download(hub, _FETCHED)
    folder = local_path(path)
    if not folder.is_dir():
        raise ConfigError(nowhere(path, "expected a folder in transformers format"))
    return folder
