"""Every release has its recipe, of the size that the original has; the documentation lists them."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from release_tables import made, recipe_config, recipe_tokenizer  # docs/hooks

from vistok.config import read_yaml, validate
from vistok.pretrained import releases
from vistok.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
RELEASES = made("tokenizer")
# Of the cards (shared/recipes): millions of parameters. The tolerance is half a percent.
ENCODER = {"small": 25.8, "base": 85.9, "large": 303.4}
CODES_DECODER = {"small": 27.0, "base": 88.1, "large": 306.8}  # with the head of proxy codes
PIXEL_DECODER = {"large": 303.6}
LATENTS = 256 * 768 / 1e6  # RobusTok's latent tokens, beside its ViT
MASKGIT = {"encoder": 23.8, "decoder": 30.5}
# The whole tokenizer.
TOTAL = {"vq_ds16_c2i": 71.88, "vq_ds8_c2i": 70.11, "vq_ds16_t2i": 71.88,
         "vq_ds16_c2i_384": 71.88, "vq_ds16_t2i_512": 71.88,
         "retok-sb256": 232.69, "retok-ss256": 136.30,
         "instella-bae": 427.75,
         # Counted with the official code; Cosmos's, Open-MAGVIT2's and VAR's papers give no number.
         "cosmos-dv8x16x16-720p": 112.47, "cosmos-dv4x8x8-360p": 114.19,
         "cosmos-di16x16": 83.72, "cosmos-di8x8": 79.00,
         "cosmos-di16x16-360p": 86.55, "cosmos-di8x8-360p": 83.60,
         "cosmos-ci16x16": 81.51, "cosmos-ci8x8": 76.79,
         "open-magvit2-256-l": 115.13, "open-magvit2-128-l": 112.02,
         "open-magvit2-128-l-256": 112.02, "open-magvit2-pretrain-16384": 115.09,
         "open-magvit2-pretrain-262144": 115.13,
         "open-magvit2-video": 370.55, "larp-l-long": 172.18,
         "var-vqvae": 108.95, "var-vqvae-512": 108.95,
         "mar-kl16": 66.46, "tokenbridge": 66.46,
         # By hand from the official layout, without the keys that nothing reads.
         "vfrtok-l": 172.56, "vfrtok-s": 171.82,
         "ibq-1024": 107.05, "ibq-8192": 108.88, "ibq-16384": 110.98, "ibq-262144": 173.90,
         "ibq-16384-pretrain": 110.98, "ibq-262144-pretrain": 173.90,
         # Counted with the official code, without SigLIP's unread block and head.
         "tokenflow-clipb-32k-enhanced": 376.57, "tokenflow-clipb-32k-enhanced-256": 376.57,
         "tokenflow-siglip-32k": 523.53,
         # The README says 127.5, 127.8 and 128.7; its code makes the first two alike.
         "gpstoken-s64": 128.53, "gpstoken-m128": 128.53, "gpstoken-l256": 128.61}  # fmt: skip


def size_of(part) -> str:
    return {512: "small", 768: "base", 1024: "large"}[part.transformer.width]


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("name", RELEASES)
def test_the_recipe_trains_what_was_released(name):
    release = RELEASES[name]
    configs = [validate(TrainConfig, read_yaml(file)) for file in release.recipe]
    assert configs
    for before, after in pairwise(configs):
        if after.task.kind == "quantize":
            assert after.task.init == before.folder
            continue
        assert after.task.init[0].path == before.folder
        assert after.task.tokenizer == before.task.tokenizer
    if release.config is not None:
        family = releases()[name][0]
        trained = family.official(recipe_config(release))
        assert family.config(trained) == family.config(release.config)


@pytest.mark.parametrize("name", RELEASES)
def test_parameters_are_those_of_the_card(name):
    tokenizer = recipe_tokenizer(RELEASES[name])
    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    if name in TOTAL:
        assert millions(tokenizer) == pytest.approx(TOTAL[name], rel=0.005)
        return
    if name == "maskgit-vqgan":
        assert millions(encoder) == pytest.approx(MASKGIT["encoder"], rel=0.005)
        assert millions(decoder) == pytest.approx(MASKGIT["decoder"], rel=0.005)
        return
    if releases()[name][0].name == "xqgan":  # DINOv2's ViT, without a classifier
        assert millions(encoder) == pytest.approx(ENCODER["base"] + LATENTS, rel=0.005)
        assert millions(decoder) == pytest.approx(ENCODER["base"], rel=0.005)
        return
    if name.startswith(
        ("flextok", "videoflextok")
    ):  # the card gives depths; 64 channels for each block
        depths = [int(word[1:]) for word in name.split("-")[1:3]]
        inner = [part.config.transformer for part in (encoder, decoder)]
        assert [one.depth for one in inner] == [one.heads for one in inner] == depths
        assert [one.width for one in inner] == [64 * depth for depth in depths]
        steps = len(tokenizer.spec().blocks)
        assert tokenizer.spec().length == 256 * steps and tokenizer.spec().vocab == (64000,)
        return
    words = name.removeprefix("tatitok-").removeprefix("titok-").removeprefix("one-d-piece-")
    sizes = {"s": "small", "b": "base", "l": "large"}
    named = [sizes[letter] for letter in words.rstrip("-").split("-")[0] if letter in sizes]
    assert (size_of(encoder.config), size_of(decoder.config)) == (named[0], named[-1])
    assert encoder.config.latents.count == int(
        "".join(c for c in words.split("-")[0] if c.isdigit())
    )
    own = millions(encoder) - encoder.latent_tokens.numel() / 1e6  # they lie beside it there
    assert own == pytest.approx(ENCODER[named[0]], rel=0.005)
    if decoder.config.head.kind == "codes":
        assert millions(decoder) == pytest.approx(CODES_DECODER[named[-1]], rel=0.005)
        assert millions(tokenizer.output_space.decoder) == pytest.approx(
            MASKGIT["decoder"], rel=0.005
        )
    else:
        assert millions(decoder) == pytest.approx(PIXEL_DECODER[named[-1]], rel=0.005)


def test_the_network_is_the_importers():
    """A recipe's network and that of the weights are one, read from the official config's words."""
    for name, release in RELEASES.items():
        family = releases()[name][0]
        if name == "maskgit-vqgan":
            continue
        ours = recipe_config(release)
        again = family.config(family.official(ours))
        theirs = type(ours).model_validate(again)
        for part in (
            "image_size",
            "input_space",
            "output_space",
            "encoder",
            "regularizers",
            "text",
        ):
            assert getattr(ours, part) == getattr(theirs, part), (name, part)
        for part in ("quantizer", "decoder"):
            mine, given = (getattr(one, part).model_dump() for one in (ours, theirs))
            for tree in (mine, given):  # how it starts, no matter to weights
                tree.get("transformer", {}).pop("init", None)
                tree.pop("anneal_from", None)
            assert mine == given, (name, part)


def test_every_family_has_its_page_of_recipes():
    """The tables of these pages are made from the releases when the site is built."""
    pages = [path.read_text("utf-8") for path in (ROOT / "docs/recipes").glob("*.md")]
    marks = [line.split() for page in pages for line in page.splitlines() if "generated:" in line]
    for kind in ("tokenizer", "generator"):
        shown = {name for words in marks if words[2] == f"{kind}s" for name in words[3:-1]}
        assert shown == {releases()[name][0].name for name in made(kind)}


def test_the_readme_counts_the_releases():
    text = (ROOT / "README.md").read_text("utf-8")
    counts = [len(made(kind)) for kind in ("tokenizer", "generator")]
    assert f"{counts[0]} tokenizers and {counts[1]} generators" in text
