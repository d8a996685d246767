"""RobusTok against qiuk2/RobusTok: ViT on a grid of queries, VQ, latent perturbation."""

from tests.support.xqgan_family import check_system, check_training

CASE = "robustok_tokenizer"


def test_robustok(recording):
    check_training(recording, check_system(recording))
