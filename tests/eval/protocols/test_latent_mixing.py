"""iFID-v1: against a loop over pairs, and what its rows say."""

import pytest
import torch

from vistok.config import validate
from vistok.data import Photos, PhotosConfig
from vistok.eval.images import Views, exact
from vistok.eval.protocols import latent_mixing
from vistok.eval.reference.training_set import Picked
from vistok.metrics import frechet_distance
from vistok.metrics.interpolated import slerp
from vistok.metrics.perturbed import draws
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


@pytest.fixture
def tokenizer(tree):
    torch.manual_seed(1)
    config = tree() | {"quantizer": {"kind": "kl", "dim": 3}}
    return Tokenizer(validate(TokenizerConfig, config)).eval()


def training(count=30):
    return Views(Picked(Photos(PhotosConfig(size=8)).open("train", augment=False), count), 16)


def images(tokenizer, views):
    """The token values of all images, one after the other: [N, D]."""
    values = [tokenizer.encode(views.pick([i])).values.flatten(1) for i in range(len(views))]
    return torch.cat(values)


def test_like_a_loop_over_pairs(context, measure, tokenizer):
    found, base = context(tokenizer), training()
    (row,) = measure(found, "ifid", lambda context: base)
    with exact():
        clean, others = images(tokenizer, found.views), images(tokenizer, base)
        mixed = []
        for place, own in enumerate(clean):
            cosine = torch.cosine_similarity(own[None].double(), others.double())
            nearest = sorted(range(len(others)), key=lambda i, c=cosine: -float(c[i]))[:10]
            weight = torch.tensor([-float(((own - others[i]) ** 2).mean()) for i in nearest])
            u, total = draws(0, place, 1)[0][0], 0.0
            for share in weight.double().softmax(0).tolist():
                total += share
                chosen = nearest.pop(0)
                if u < total:
                    break
            mixed.append(slerp(own[None], others[chosen][None], 0.5).float())
        stats = found.new_stats()
        values = torch.cat(mixed).view(len(clean), 4, 3)
        decoded = tokenizer.decode(Tokens(found.spec, values=values))
        stats.update(found.features((decoded * 255).round().to(torch.uint8)))
        expected = frechet_distance(stats, found.views.stats(found.features))
    assert row.value == pytest.approx(expected, rel=1e-5)
    clean_row = next(r for r in measure(found, "rfid") if r.metric == "rFID")
    assert abs(clean_row.value - expected) > 5e-4 * expected  # it is no rFID
    assert (row.metric, row.length, row.seed, row.point) == ("iFID-v1", 4, 0, {})
    for words in ("nearest of 30 training images", "10 nearest by cosine", "0.5 of the arc"):
        assert words in row.note


def test_batch_size_changes_nothing(context, measure, tokenizer):
    one, two = (
        measure(context(tokenizer, batch=size), "ifid", lambda context: training(), mode="quick")
        for size in (24, 5)
    )
    assert one[0].metric == "iFID-v1-quick" and "all 24 images" in one[0].note
    assert [row.value for row in two] == pytest.approx([row.value for row in one], rel=1e-5)


def test_a_latent_halfway_to_itself_stays(context, tokenizer):
    with exact():
        clean = images(tokenizer, context(tokenizer).views)
        ten = clean[:, None].expand(-1, 10, -1)
        same = latent_mixing.between(clean, ten, torch.arange(len(clean)), 0)
    assert same == pytest.approx(clean, rel=1e-5)


def test_what_does_not_apply(context, measure, tokenizer, monkeypatch):
    found = context(tokenizer)
    assert measure(found, "ifid", lambda context: training(7)) == []
    assert "7 images to choose a neighbor from; give 10" in found.skipped[-1]["reason"]
    monkeypatch.setattr(latent_mixing, "MOST", 100)
    assert measure(found, "ifid", lambda context: training()) == []
    assert "lower ifid.train_images" in found.skipped[-1]["reason"]
