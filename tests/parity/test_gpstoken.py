"""GPSToken's tokenizer against xtudbxk/GPSToken: regions, tokens, tiles, map, image, weights."""

import torch

from vistok.config.registry import build
from vistok.layers.tiles import join
from vistok.pretrained import from_official, to_official

CASE = "gpstoken"


def test_gpstoken(recording):
    io, config = recording.io, recording.config
    tokenizer = from_official("gpstoken", recording.weights, config)
    state, official = to_official(tokenizer)
    assert official == config and set(state) == set(recording.weights)
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    with torch.no_grad():
        check_encoder(recording, tokenizer.encoder)
        check_decoder(recording, decoder_of(tokenizer, len(io["tokens"])))
        check_whole(recording, tokenizer)


def decoder_of(tokenizer, tiles):
    """The decoder with the original's places of tiles, which are wrong for several images."""
    config = tokenizer.config.decoder
    if tiles == config.tiles**2:
        return tokenizer.decoder
    config = config.model_copy(update={"tile_order": "batch"})
    layout = tokenizer.layout
    decoder = build(config, tokenizer.output_space.shape, layout.values, layout.dim)
    decoder.load_state_dict(tokenizer.decoder.state_dict())
    return decoder.eval()


def check_encoder(recording, encoder):
    """Tiles -> Gaussians and regions of the partition -> tokens."""
    io, count = recording.io, encoder.config.count
    start, boxes = encoder.regions(io["image"], count)
    recording.close(start, "initial_gaussians")
    recording.close(boxes, "regions")
    recording.close(encoder.read(io["image"], count)[0], "tokens")


def check_decoder(recording, decoder):
    """Recorded tokens -> those of whole images -> map -> image."""
    io, parts = recording.io, decoder.config.tiles**2
    merged = decoder.merged(io["tokens"].unflatten(0, (-1, parts)).flatten(1, 2))
    recording.close(merged, "merged_tokens")
    maps = decoder.render(io["merged_tokens"])
    recording.close(maps, "feature_map")
    recording.close(decoder.cnn.from_map(io["feature_map"]).estimate, "reconstruction")


def check_whole(recording, tokenizer):
    """Pixels of whole images -> pixels."""
    io, tiles = recording.io, tokenizer.config.encoder.tiles
    latents = tokenizer.encoder(join(io["image"], tiles))
    tokens = io["tokens"].reshape(latents.values.shape)
    recording.close(latents.values, tokens, "tokens")
    decoder = decoder_of(tokenizer, len(io["image"]))
    recording.close(decoder(latents.values).estimate, "reconstruction")
    pixels = (join(io["image"], tiles) + 1) / 2
    if tuple(pixels.shape[2:]) != tuple(tokenizer.shape.sides) or decoder is not tokenizer.decoder:
        return
    shown = tokenizer.decode(tokenizer.encode(pixels))
    recording.close(shown, (io["reconstruction"] / 2 + 0.5).clamp(0, 1), "reconstruction")
