"""Redraw a share of each image's tokens with a trained generator, and write what it looks like.

Pairs for post-training ("Image Tokenizer Needs Post-Training", arXiv 2509.12474, stage two): an
image is encoded to tokens t; the generator samples token by token under the image's class, and
after position i was sampled the true t_i takes its place with probability `sigma` (drawn once per
image and position); the tokenizer decodes the mixed sequence. A decoder that is then trained to
give the original for such an image learns the errors of generators: see `data.kind: pairs`.

Images are read without augmentation, and chosen by a permutation keyed by the seed. Everything
random is keyed by (seed, image), and images share a batch by their place alone: an interrupted run
resumes where it stopped, and several processes on one machine write the same files as one. The
data are those of the tokenizer's run, unless the config names others.

Writes `train/` and `val/` below the run's folder, as `vistok.data.pairs` describes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from vistok import pretrained
from vistok.config import Config, ConfigError, UserError
from vistok.config.registry import register
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.verbosity import note
from vistok.data.base import BadSample, Dataset, Sample
from vistok.data.batch import to_device, to_uint8
from vistok.data.loading import workers as worker
from vistok.data.loading.collate import Collate, Row
from vistok.data.loading.shared_memory import told_as_shortage
from vistok.data.order import eval_indices
from vistok.data.pairs import PairRow, PairsWriter, file_of
from vistok.generators import Generator
from vistok.pretrained.identity import identify
from vistok.storage.hub import CONFIG, WEIGHTS, read_json
from vistok.storage.lineage import Identity, pairing, read_record
from vistok.storage.weights import file_sha256, sha256
from vistok.tokenizer import Tokenizer
from vistok.train.jobs.base import Context, Job, end_early, on_one_machine, progress_bar
from vistok.train.signals import StopRequest
from vistok.train.tasks.base import check_sides


class PreserveConfig(Config):
    kind: Literal["preserve"] = "preserve"
    generator: str
    """A generator: a run, a folder made by save_pretrained, official weights or a released name."""
    tokenizer: str | None = None
    """The tokenizer that encodes and decodes; null: the one whose tokens the generator learned, by
    the name that it had then."""
    sigma: float = Field(default=0.7, ge=0, le=1)
    """Preservation ratio: probability that a position keeps the image's own token."""
    count: int = Field(default=200_000, ge=1)
    """Training images to write; all if there are fewer."""
    val_count: int = Field(default=1000, ge=1)
    """Validation images to write; all if there are fewer."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Changes to the generator's own sampling (guidance, temperature)."""
    decoder_sampling: dict[str, Any] = Field(default_factory=dict)
    """Changes to the sampling of a decoder that samples."""


@register("task", PreserveConfig)
class Preserve(Job):
    def __init__(self, config: PreserveConfig, data: Any) -> None:
        self.config = config
        self.tokenizer = config.tokenizer or made_by(config.generator).get("name")

    def rows(self, split: str, count: int) -> int:
        return min(count, self.config.count if split == "train" else self.config.val_count)

    def run(self, context: Context) -> None:
        accelerator, device = context.accelerator, context.accelerator.device
        on_one_machine(accelerator.num_processes)
        with accelerator.main_process_first():
            redrawing = Redrawing.open(self.config, self.tokenizer, context.config.seed)
        if context.data is None:
            raise ConfigError(
                f"data: missing, and {redrawing.identity.name} is no run that names some; give the "
                "images to redraw, e.g. 'data={kind: folder, path: my/images, size: 32}'"
            )
        redrawing.to(device)
        for split in ("train", "val"):
            dataset = context.data.open(split, augment=False)
            redrawing.check(dataset)
            rows = chosen(len(dataset), self.rows(split, len(dataset)), context.config.seed)
            originals = {
                "config": context.config.data.model_dump(mode="json"),
                "split": split,
                "record": dataset.record(),
            }
            with accelerator.main_process_first():
                writer = PairsWriter(
                    context.folder / split,
                    len(rows),
                    {"originals": originals, **redrawing.record()},
                    context.config.batch_size,
                    accelerator.is_main_process,
                )
            stop = StopRequest()
            with stop.listening():
                _fill(writer, dataset, rows, redrawing, context, split, stop)
        if accelerator.is_main_process:
            note(f"pairs are in {context.folder / 'train'} and {context.folder / 'val'}")


def made_by(generator: str) -> dict[str, str]:
    """The record of the tokenizer whose tokens a generator learned; {} if it is not here."""
    try:
        folder = pretrained.locate(generator, "generator").folder
        return {} if folder is None else read_record(read_json(folder / CONFIG).get("tokenizer"))
    except UserError:
        return {}


def chosen(count: int, wanted: int, seed: int) -> list[int]:
    """Places of `wanted` of `count` samples, by a permutation keyed by the seed."""
    return Rng(seed, "preserve/order").generator().permutation(count)[:wanted].tolist()


class Redrawing:
    """A generator and its tokenizer, and how images are redrawn with them."""

    def __init__(
        self,
        config: PreserveConfig,
        generator: Generator,
        digest: str,
        tokenizer: Tokenizer,
        identity: Identity,
        seed: int,
    ) -> None:
        self.config, self.seed = config, seed
        self.generator, self.digest = generator, digest
        self.tokenizer, self.identity = tokenizer, identity
        self.sampling = generator.settings(config.sampling)
        self.decoding = tokenizer.settings(config.decoder_sampling or None)

    @classmethod
    def open(cls, config: PreserveConfig, tokenizer: str | None, seed: int) -> Redrawing:
        """Load both; a UserError of one line if one is missing or they do not go together."""
        generator = pretrained.open(config.generator, expect="generator")
        tokenizer = tokenizer or generator.tokenizer.get("name")  # official weights say it, too
        if not tokenizer:
            raise ConfigError(
                f"task.generator: {config.generator} does not say whose tokens it learned; name "
                "the tokenizer: task.tokenizer=..."
            )
        owner, identity = identify(tokenizer)
        pair = pairing(generator.tokenizer, identity)
        if pair.refused:
            raise ConfigError(
                f"task.tokenizer: {tokenizer} is not the tokenizer whose tokens {config.generator} "
                f"learned: {pair.text}"
            )
        if owner.shape.is_clip or not owner.spec().vocab or owner.spec() != generator.spec:
            raise ConfigError(
                f"task.tokenizer: {tokenizer} has other tokens than {config.generator} models, or "
                "no codes of images; expected the tokenizer of images whose tokens it learned"
            )
        folder = pretrained.locate(config.generator, "generator").folder
        weights = None if folder is None else folder / WEIGHTS
        digest = file_sha256(generator.state_dict()) if weights is None else sha256(weights)
        return cls(config, generator, digest, owner, identity, seed)

    def to(self, device: torch.device) -> None:
        self.generator.to(device).eval()
        self.tokenizer.to(device).eval()

    def check(self, data: Dataset) -> None:
        """ConfigError for data of other sides or classes than those that were learned."""
        check_sides(data, self.tokenizer.shape.sides, "this tokenizer")
        wanted, count = self.generator.classes, self.generator.num_classes
        if count and (count != len(data.classes) or wanted not in ((), data.classes)):
            names = ", ".join(data.classes[:3]) or "none"
            raise ConfigError(
                f"data: has {len(data.classes)} classes ({names}, ...); the generator learned "
                f"{count} ({', '.join(wanted[:3])}, ...): use the data that its tokens came from"
            )

    def record(self) -> dict[str, Any]:
        """The facts that the images depend on besides the originals."""
        decoding = None if self.decoding is None else self.decoding.model_dump(mode="json")
        return {
            "tokenizer": self.identity.record(),
            "generator": {"name": self.config.generator, "sha256": self.digest},
            "sigma": self.config.sigma,
            "seed": self.seed,
            "sampling": {
                "generator": self.sampling.model_dump(mode="json"),
                "decoder": decoding,
            },
        }

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Images [B, 3, H, W] uint8, on the CPU, of a batch whose `index` are places of images."""
        tokenizer, generator = self.tokenizer, self.generator
        said = tokenizer.condition_of(batch)
        reads = "encoder" in tokenizer.config.reading
        tokens = tokenizer.encode(batch.pixels, condition=said if reads else None)
        kept = self.kept(batch.index, tokens.spec.length)
        condition = generator.condition_of(replace(batch, condition=said))
        condition = replace(condition, known=tokens, known_mask=kept.to(batch.pixels.device))
        mixed = generator.sample(
            condition, index=batch.index, seed=self.seed, sampling=self.sampling
        )
        pixels = tokenizer.decode(
            mixed, said, seed=self.seed, index=batch.index, sampling=self.decoding
        )
        return to_uint8(pixels).cpu()

    def kept(self, index: Tensor, length: int) -> Tensor:
        """[B, L] bool: positions that keep the image's own token."""
        return Rng(self.seed, "preserve").uniform(index, (length,)) < self.config.sigma


class _Rows:
    """Place among the chosen images -> sample, its index its place in the data set."""

    def __init__(self, dataset: Dataset, rows: list[int]) -> None:
        self.dataset, self.rows = dataset, rows

    def __getitem__(self, place: int) -> Sample | BadSample:
        try:
            return self.dataset[self.rows[place]]
        except BadSample as bad:  # as a value: torch would wrap the error in a traceback
            return bad


def _batches(
    dataset: Dataset, rows: list[int], start: int, context: Context
) -> Iterator[list[Sample]]:
    """This process's batches of the rows start..; BadSample for an image that cannot be used."""
    config, accelerator = context.config, context.accelerator
    world, rank = accelerator.num_processes, accelerator.process_index
    places = eval_indices(len(rows), config.batch_size, rank, world, start)
    with told_as_shortage():
        for samples in DataLoader(
            _Rows(dataset, rows),
            batch_sampler=places,
            collate_fn=list,
            num_workers=config.workers,
            generator=torch.Generator(),
            worker_init_fn=worker.begin,
        ):
            for sample in samples:
                if isinstance(sample, BadSample):
                    raise sample
            yield samples


def _fill(
    writer: PairsWriter,
    dataset: Dataset,
    rows: list[int],
    redrawing: Redrawing,
    context: Context,
    split: str,
    stop: StopRequest,
) -> None:
    """Write the rows that are left, a batch for each process at a time."""
    accelerator = context.accelerator
    collate = Collate(dataset)
    batches = _batches(dataset, rows, writer.written, context)
    bar = progress_bar(accelerator, f"preserve {split}", writer.count, writer.written)
    while not writer.finished:
        samples = next(batches, [])  # a rank may have none in the last turn
        done: list[PairRow] = []
        if samples:
            loaded = collate([Row(sample, False, ()) for sample in samples]).batch
            images = redrawing(to_device(loaded, accelerator.device))
            done = [_write(writer, *one, dataset) for one in zip(samples, images, strict=True)]
        parts = gather_object([done]) if accelerator.num_processes > 1 else [done]
        fresh = [row for part in parts for row in part]
        writer.count_up(fresh)
        bar.update(len(fresh))
        if stop.agreed() and not writer.finished:
            kept = f"{writer.written} of {writer.count} pairs of {split}"
            end_early(bar, stop, accelerator, kept)
    bar.close()
    accelerator.wait_for_everyone()


def _write(writer: PairsWriter, sample: Sample, image: Tensor, dataset: Dataset) -> PairRow:
    folder = dataset.classes[sample.label] if sample.label >= 0 else ""
    file = file_of(folder, sample.name, sample.index)
    digest = writer.put(file, _png(image))
    return PairRow(file, sample.name, sample.index, sample.label, digest)


def _png(image: Tensor) -> bytes:
    """A PNG file of [3, H, W] uint8."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="PNG")
    return file.getvalue()
