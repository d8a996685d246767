"""Extract tokens once: a frozen tokenizer over a data set, into a memory-mapped cache.

Continuous tokenizers give values instead of codes. Features of texts, latents and the input space
are kept on request. The data are read by index and without augmentation.

The data are those of the tokenizer's run, unless the config names others.

Writes `train/` and `val/` caches below the run's folder. An interrupted cache resumes where it
stopped; a finished one is left alone. Several processes on one machine take batches in turn; each
batch is the same whatever their number (`batch_size` images per process), and so are the bytes.
Training samples may be cached as several crops; validation samples are always cached once.
Beside the caches lies `contact_sheet.png`: the first samples, and their stored tokens decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config, ConfigError, UserError
from vistok.config.one_or_list import one_or_list
from vistok.config.registry import register
from vistok.core.records import Condition
from vistok.core.verbosity import note
from vistok.data.batch import to_device
from vistok.data.decode.crops import Crops, open_crops
from vistok.data.loading.loader import EvalLoader
from vistok.data.token_cache import PER_SAMPLE, ArraySpec
from vistok.data.token_cache_writer import TokenCacheWriter
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.layers.frames import hold
from vistok.pretrained import saved_folder
from vistok.pretrained.identity import identity_of
from vistok.runtime.modes import evaluating
from vistok.storage.hub import WEIGHTS
from vistok.storage.weights import sha256
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens
from vistok.train.jobs.base import Context, Job, end_early, on_one_machine, progress_bar
from vistok.train.jobs.contact_sheet import NAME as SHEET
from vistok.train.jobs.contact_sheet import write_contact_sheet
from vistok.train.signals import StopRequest
from vistok.train.tasks.base import check_sides
from vistok.train.tasks.cached_space import space_identity

CropRange = Annotated[float, Field(ge=1, le=64)]


class CacheConfig(Config):
    kind: Literal["cache"] = "cache"
    tokenizer: str
    """A tokenizer's run folder, or a folder made by save_pretrained."""
    limit: int | None = Field(default=None, ge=1)
    """Training samples to tokenize; null = all."""
    crops: Crops = 1
    """Crops of each training sample: 1, 2 (center and mirror) or ten (LlamaGen's)."""
    crop_range: one_or_list(CropRange) = 1.1
    """Side of the image that is cropped, as a multiple of data.size; for crops: ten. A list: ten
    crops at each ([1.1, 1.05]: LlamaGen), of which training draws one for each epoch."""
    text: bool | TextEncoderConfig = False
    """Also keep the features of each sample's text, for generators that read them: true, those of
    the tokenizer's text encoder; or a text encoder of its own, which may give pooled features
    besides ({network: clip, path: ..., layer: penultimate, pooled: projected}: MaskGen). Features
    of the empty text are kept once."""
    latents: bool = False
    """Also keep the encoder's output before quantization [N, D]; images are then encoded twice."""
    space: bool = False
    """Also keep the tokenizer's input space [C, *sides] (latents of a VAE: their mode): a tokenizer
    of the same space trains on it without running the VAE (data.kind=tokens). It does not depend on
    the tokenizer's own weights, so that one of a single step will do."""
    first_frames: int | None = Field(default=None, ge=1)
    """Also keep the tokens of each clip's first frames, the last of them held to the end of the
    clip, for generators that continue them (condition.first_frames); clips are then encoded
    twice."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type in which text features, latents and the space are kept; tokens are not affected."""


@register("task", CacheConfig)
class Cache(Job):
    caches = True

    def __init__(self, config: CacheConfig, data) -> None:
        self.config, self.tokenizer = config, config.tokenizer
        self._own_encoder: TextEncoder | None = None

    def rows(self, split: str, count: int) -> int:
        limit = self.config.limit if split == "train" else None
        return count if limit is None else min(limit, count)

    def run(self, context: Context) -> None:
        config, accelerator, folder = context.config, context.accelerator, context.folder
        if context.data is None:
            raise ConfigError(
                f"data: missing, and {self.config.tokenizer} is no run that names some; give the "
                "data set to tokenize, e.g. 'data={kind: folder, path: my/images, size: 32}'"
            )
        with accelerator.main_process_first():  # a released one is converted once
            source = saved_folder(self.config.tokenizer, expect="tokenizer")
        tokenizer = Tokenizer.from_pretrained(str(source))
        made_by = identity_of(tokenizer, self.config.tokenizer, sha256(source / WEIGHTS))
        tokenizer.to(accelerator.device)
        on_one_machine(accelerator.num_processes)
        datasets = {}
        for split, crops in (("train", self.config.crops), ("val", 1)):
            dataset = open_crops(config.data, split, crops, self.config.crop_range)
            datasets[split] = dataset
            check_sides(dataset, tokenizer.shape.sides, "this tokenizer")
            rows = getattr(dataset, "crops", 1)
            limit = self.config.limit if split == "train" else None
            count = len(dataset) if limit is None else min(limit * rows, len(dataset))
            record = dataset.record()
            if self.config.text:
                record["text_encoder"] = self._text_encoder(tokenizer).record()
            if self.config.space:
                record["space"] = space_identity(tokenizer)
            if self.config.first_frames is not None:
                record["first_frames"] = self._first_frames(tokenizer)
            if accelerator.is_main_process:
                note(_described(split, record, count, len(dataset), rows))
            with accelerator.main_process_first():
                writer = TokenCacheWriter(
                    folder / split,
                    tokenizer.spec(),
                    count,
                    source=record,
                    tokenizer=made_by.name,
                    sha256=made_by.sha256,
                    codes_sha256=made_by.codes_sha256,
                    classes=dataset.classes,
                    crops=rows,
                    names=None if dataset.names is None else dataset.names[: count // rows],
                    leader=accelerator.is_main_process,
                    arrays=self._arrays(tokenizer, dataset, accelerator.device),
                    empty=self._texts(tokenizer, [""]) if self.config.text else None,
                )
            stop = StopRequest()
            with stop.listening(), writer:
                self._fill(writer, dataset, tokenizer, config, accelerator, split, stop)
        if accelerator.is_main_process:
            note(f"tokens are cached in {folder / 'train'} and {folder / 'val'}")
            try:
                write_contact_sheet(folder, datasets, tokenizer)
            except UserError as error:  # a decoder that reads texts, without its text encoder
                note(f"no contact sheet: {error}")
            else:
                note(f"look at {folder / SHEET}: samples, and their tokens decoded")

    def _arrays(self, tokenizer, dataset, device: torch.device) -> dict[str, ArraySpec]:
        """The arrays that are kept besides tokens and labels, as the first sample shows them."""
        kept = (self.config.text, self.config.latents, self.config.space, self.config.first_frames)
        if not any(kept):
            return {}
        batch = to_device(next(iter(EvalLoader(dataset, 1, limit=1))), device)
        _, condition, latents, space, prefix = self._encode(tokenizer, batch)
        kept = {"latents": latents, "space": space, "prefix": prefix}
        kept |= {n: getattr(condition, n, None) for n in PER_SAMPLE}
        return {
            name: ArraySpec.of(values, self.config.dtype)
            for name, values in kept.items()
            if values is not None
        }

    def _first_frames(self, tokenizer) -> int:
        """task.first_frames, checked."""
        first, shape = self.config.first_frames, tokenizer.shape
        if not shape.is_clip or first >= shape.frames:
            kind = f"clips of {shape.frames} frames" if shape.is_clip else "images"
            raise ConfigError(
                f"task.first_frames={first}: the tokenizer {self.config.tokenizer} takes {kind}; "
                "expected fewer frames than its clips have, or null"
            )
        if not tokenizer.spec().vocab:
            raise ConfigError(
                f"task.first_frames={first}: the tokens of {self.config.tokenizer} are continuous; "
                "generators continue discrete ones: set it to null"
            )
        return first

    def _text_encoder(self, tokenizer) -> TextEncoder:
        """The text encoder whose features are kept; loaded once."""
        if self.config.text is not True:
            if self._own_encoder is None:
                self._own_encoder = TextEncoder(self.config.text)
            return self._own_encoder
        if tokenizer.config.text is None:
            raise ConfigError(
                f"task.text=true: the tokenizer {self.config.tokenizer} has no text encoder; give "
                "task.text a text encoder ({network: clip, path: ...}), or text=false"
            )
        return tokenizer.text_encoder

    def _texts(self, tokenizer, texts: Sequence[str] | None) -> Condition:
        """Features of texts, on the tokenizer's device."""
        if texts is None:
            raise ConfigError(
                "data: features of texts are asked for (task.text), and the data give none; use "
                "texts of the data (text=txt of webdataset, text_column of huggingface), or "
                "data.caption for one of each class"
            )
        device = next(tokenizer.parameters()).device
        return self._text_encoder(tokenizer).to(device).condition(texts)

    @torch.no_grad()
    def _encode(
        self, tokenizer, batch
    ) -> tuple[Tokens, Condition | None, Tensor | None, Tensor | None, Tensor | None]:
        """Tokens of a batch; its text features, latents, input space and tokens of first frames,
        where they are kept."""
        reads = "encoder" in tokenizer.config.reading  # else codes do not depend on texts
        seen = tokenizer.condition_of(batch) if reads else None
        if seen is None and tokenizer.encoder.reads_fps and batch.fps is not None:
            seen = Condition(fps=batch.fps)
        kept = self._texts(tokenizer, batch.text) if self.config.text else None
        tokens = tokenizer.encode(batch.pixels, condition=seen)
        latents = space = prefix = None
        if self.config.first_frames is not None:
            known = hold(batch.pixels, self.config.first_frames)
            prefix = tokenizer.encode(known, condition=seen).indices
        with evaluating(tokenizer):
            if self.config.latents:
                latents = tokenizer.latents(batch.pixels, seen).values
            if self.config.space:
                space = tokenizer.input_space(batch.pixels)
        return tokens, kept, latents, space, prefix

    @torch.no_grad()
    def _fill(
        self, writer, dataset, tokenizer, config, accelerator, split: str, stop: StopRequest
    ) -> None:
        world = accelerator.num_processes
        batches = iter(
            EvalLoader(
                dataset,
                config.batch_size,
                workers=config.workers,
                rank=accelerator.process_index,
                world=world,
                limit=writer.count,
                start=writer.written,
            )
        )
        bar = progress_bar(accelerator, f"cache {split}", writer.count, writer.written)
        share = config.batch_size * world
        for start in range(writer.written, writer.count, share):
            end = min(start + share, writer.count)
            batch = next(batches, None)  # a rank may have none in the last turn
            if batch is not None:
                moved = to_device(batch, accelerator.device)
                tokens, *more = self._encode(tokenizer, moved)
                if world == 1:
                    writer.write(tokens, moved.label, *more)
                else:
                    first = int(batch.index[0])
                    writer.put(first, tokens, moved.label, *more)
            stopped = stop.agreed()
            if world > 1 and (stopped or writer.due(end)):
                writer.force()
                accelerator.wait_for_everyone()
                writer.count_up(end)
            bar.update(end - start)
            if stopped:
                end_early(bar, stop, accelerator, f"{end} of {writer.count} rows of {split}")
        bar.close()


def _described(split: str, record: dict[str, Any], count: int, whole: int, crops: int) -> str:
    """One line on what a cache will hold: `count` of the `whole` rows of which data."""
    named = f"{record['kind']} {record['source']}" if record.get("source") else record["kind"]
    line = f"{split}: {count // crops:,} samples of {named}"
    if count < whole:
        line += f"; the limit leaves out {(whole - count) // crops:,}"
    return line
