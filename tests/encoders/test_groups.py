"""Groups of patches: the clusters and tracks that clips were made of, their number and places."""

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.contracts.case import tiny, tiny_tree
from vistok.core.shapes import Shape
from vistok.encoders.clusters import ClusterEncoder, ClustersConfig
from vistok.encoders.tracks import TrackEncoder, TracksConfig
from vistok.layers.grouping import by_size, clusters, elbow, farthest_first, tracks
from vistok.tokenizer import Tokenizer, TokenizerConfig


def directions(sizes: list[int], noise: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [1, M, 8] around as many axes, so many of each, in random order; and their axes [M]."""
    torch.manual_seed(0)
    which = torch.cat([torch.full((size,), axis) for axis, size in enumerate(sizes)])
    which = which[torch.randperm(len(which))]
    return (torch.eye(8)[which] + noise * torch.randn(len(which), 8))[None], which


def test_clusters_are_found_and_numbered_by_size():
    rows, which = directions([3, 9, 5])
    ids, counts = by_size(clusters(rows, 3, None, 5), 3)
    assert counts.tolist() == [3]
    assert ids[0].tolist() == torch.tensor([2, 0, 1])[which].tolist()


@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_number_is_where_the_costs_bend(number):
    rows, _ = directions([6] * number)
    ids = clusters(rows, 8, 2, 5)
    assert by_size(ids, 8)[1].tolist() == [number]
    both = clusters(torch.cat([rows, rows.flip(1)]), 8, 2, 5)  # each sample for itself
    assert torch.equal(both[:1], ids)


def test_an_elbow_is_the_largest_second_difference():
    costs = torch.tensor([[9.0, 8.0, 2.0, 1.0, 1.0], [9.0, 3.0, 2.0, 1.0, 1.0]])
    assert elbow(costs, 5).tolist() == [6, 5]


def test_starts_are_far_apart_and_equal_rows_give_one_cluster():
    rows, _ = directions([4, 4, 4], 0.0)
    assert len({row.argmax().item() for row in farthest_first(rows, 3)[0]}) == 3
    ids, counts = by_size(clusters(torch.ones(1, 6, 4), 4, 2, 3), 4)
    assert counts.tolist() == [1] and not ids.any()


def moving() -> torch.Tensor:
    """A square that moves right by one of 4 x 4 cells a frame, and a dot that comes in frame 2:
    clip [1, 3, 4, 8, 8]."""
    clip = torch.zeros(1, 3, 4, 8, 8)
    clip[:, 2] = 1.0  # a blue ground
    for frame in range(4):
        x = 2 * frame
        clip[0, :, frame, 2:4, x : x + 2] = torch.tensor([1.0, 0, 0])[:, None, None]
        if frame >= 2:
            clip[0, :, frame, 6:8, 0:2] = torch.tensor([0, 1.0, 0])[:, None, None]
    return clip


def track_encoder(**changes) -> TrackEncoder:
    torch.manual_seed(0)
    tree = TracksConfig.tiny().model_dump(mode="json") | {"key_every": 2, "count": 6} | changes
    return TrackEncoder(validate(TracksConfig, tree), Shape(3, (4, 8, 8)), 5).eval()


def test_a_track_follows_what_moves_and_begins_when_it_comes():
    encoder = track_encoder(place_weight=0.1)
    ids, counts = encoder.groups(moving())
    assert counts.tolist() == [3]
    ids = ids.view(4, 4, 4)
    for frame in range(4):
        assert ids[frame, 1, frame] == 1 and (ids[frame] == 1).sum() == 1
        assert (ids[frame] == 2).sum() == (frame >= 2)
    late = track_encoder(place_weight=0.1, key_every=3)  # no key frame until the last
    assert (late.groups(moving())[0].view(4, 16) == 2).sum(1).tolist() == [0, 0, 0, 1]


def test_a_track_is_read_where_it_is():
    encoder, clip = track_encoder(place_weight=0.1), moving()
    whole, other = encoder(clip), clip.clone()
    other[0, 0, :, 6:8, 6:8] = 0.1  # a shade of the ground, in a corner
    moved = encoder(other)
    assert whole.counts.tolist() == moved.counts.tolist() == [3]
    alone = track_encoder(place_weight=0.1, transformer=None)
    rows = [alone(one).values[0] for one in (clip, other)]
    torch.testing.assert_close(rows[0][1:3], rows[1][1:3])
    assert not torch.allclose(rows[0][0], rows[1][0])
    torch.testing.assert_close(whole.values[0, 3:], whole.values[0, :1].expand(3, -1))


def test_distances_decide_how_many_tracks_there_are():
    rows = torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 3, 1)
    assert by_size(tracks(rows, 3, 0.5, 1, 0.5).flatten(1), 3)[1].tolist() == [3]
    assert by_size(tracks(rows, 3, 2.0, 1, 0.5).flatten(1), 3)[1].tolist() == [2]
    assert by_size(tracks(rows, 1, 0.5, 1, 0.5).flatten(1), 1)[1].tolist() == [1]


def test_places_are_kept_as_numbers():
    torch.manual_seed(0)
    tree = ClustersConfig.tiny().model_dump(mode="json") | {"places": "appended", "least": None}
    encoder = ClusterEncoder(validate(ClustersConfig, tree | {"count": 2}), Shape(3, (8, 8)), 9)
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0], image[:, 0, :, 6:], image[:, 1, :, 6:] = 1.0, 0.0, 1.0  # three quarters, and one
    values = encoder(image).values[0, :, -5:]
    deviation = torch.tensor([0.125, 0.375, 0.625, 0.875]).std(correction=0)
    wide = torch.tensor([0.125, 0.375, 0.625]).std(correction=0)
    expected = [[0.5, 0.375, deviation, wide, 0.75], [0.5, 0.875, deviation, 0.0, 0.25]]
    torch.testing.assert_close(values, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_tokens_are_as_many_as_a_sample_has():
    encoder = ClustersConfig.tiny().model_dump(mode="json")
    vq = {"kind": "vq", "codebook_size": 16, "dim": 4}
    tokenizer = tiny(encoder=encoder, quantizer=vq).eval()
    images = torch.rand(2, 3, 8, 8)
    images[1] = 0.5
    tokens = tokenizer.encode(images)
    counts = tokenizer.latents(images).counts
    assert tokens.keep.tolist() == counts.tolist() and counts[1] == 1
    shown = tokenizer.present(None, 2, torch.device("cpu"), counts)
    assert shown.sum(1).tolist() == counts.tolist()
    assert tokenizer.encode(images, length=1).keep.tolist() == [1, 1]
    assert len(type(tokens).from_bytes(tokens.to_bytes(), tokenizer.spec())) == 2


def test_a_decoder_of_whole_sequences_is_refused(fails):
    tree = tiny_tree(encoder=ClustersConfig.tiny().model_dump(mode="json"))
    tree["decoder"]["missing"] = "refuse"
    with fails(ConfigError, "encoder.kind=clusters: samples have different numbers of tokens"):
        Tokenizer(validate(TokenizerConfig, tree))


def test_sizes_that_do_not_fit_are_one_line(fails):
    with fails(ValueError, "least=9 clusters of at most count=4"):
        validate(ClustersConfig, {"least": 9, "count": 4})
    with fails(ValueError, "reader.width=16; expected width=512"):
        validate(ClustersConfig, {"reader": {"width": 16}})
    with fails(ValueError, "over_time.width=512; expected width=64"):
        validate(TracksConfig, {"width": 64})
    with fails(ValueError, "tokens of 4 numbers, the last 5 of them places"):
        ClusterEncoder(validate(ClustersConfig, {"places": "appended"}), Shape(3, (32, 32)), 4)


def test_patches_have_no_class_token(fails):
    for config in (ClustersConfig, TracksConfig):
        tree = config.tiny().model_dump()
        tree["patches"]["class_token"] = True
        with fails(ConfigError, "patches.class_token=true: this encoder has none"):
            validate(config, tree)
