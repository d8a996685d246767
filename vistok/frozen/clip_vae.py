"""VidTok borrowed: a frozen VAE of clips, known by file and hash and no part of a saved model."""

from __future__ import annotations

from vistok.frozen.files import Source, fitted, hollow, read_state
from vistok.frozen.network import Frozen
from vistok.frozen.vae import Coder
from vistok.frozen.vidtok import VidTokConfig
from vistok.storage.hollow import whole
from vistok.storage.weights import sha256

NAME = "vidtok_kl_causal_488_16chn"
SOURCE = Source(
    network=NAME,
    file=f"{NAME}.ckpt",
    project="VidTok",
    url="https://github.com/microsoft/VidTok",
    fetched=False,
)
_TRAINING = "loss."  # a discriminator and LPIPS, which lie in the checkpoint too


class BorrowedVidTok(Coder, Frozen):
    def __init__(self, weights: str, config: VidTokConfig) -> None:
        """
        Args:
            weights: the name of the release, to be found in $VISTOK_WEIGHTS, or a path.
        MissingWeights or BadWeights in one line.
        """
        if hollow():
            super().__init__(f"vae {weights}", "")
            self.network = config.build()
            self.freeze()
            return
        file = SOURCE.find(None if weights == NAME else weights)
        state = read_state(file, NAME)
        with whole():
            network = config.build()
        used = {key: tensor for key, tensor in state.items() if not key.startswith(_TRAINING)}
        network.load_state_dict(fitted(network.state_dict(), used, NAME))
        super().__init__(f"vae {file.name}", sha256(file))
        self.network = network
        self.freeze()
