"""ImageFolder against qiuk2/RobusTok: a product of residual scales behind a ViT on two grids."""

from tests.support.xqgan_family import check_system, check_training, in_range, pixels_of

CASE = "imagefolder_pq_tokenizer"


def test_imagefolder(recording):
    tokenizer = check_system(recording)
    check_prefixes(recording, tokenizer)
    check_training(recording, tokenizer)


def check_prefixes(recording, tokenizer):
    """Images of the first scales alone."""
    tokens = tokenizer.encode(pixels_of(recording))
    for name in recording.io:
        if name.startswith("recon_upto_scale"):
            kept = int(name.removeprefix("recon_upto_scale")) + 1
            recording.close(in_range(tokenizer.decode(tokens.prefix(kept))), name)
