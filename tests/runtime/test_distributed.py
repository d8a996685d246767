"""Two processes on halves of a batch do what one does on the whole."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from vistok.config import validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.losses.adversarial import AdversarialConfig, AdversarialLoss
from vistok.losses.similarity import global_mean, negative_cosine, symmetric_infonce
from vistok.quantizers.atoms.bits import batch_entropy
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.regularizers.latent_perturbation import LatentPerturbationConfig
from vistok.regularizers.level_dropout import LevelDropoutConfig
from vistok.runtime import distributed
from vistok.tokens import TokenSpec

SHARES = (0.1, 0.25, 0.45, 0.7, 0.99)  # halves of eight images would round most of them otherwise


def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8, 5, 4, generator=generator)
    pixels = torch.rand(8, 3, 32, 32, generator=generator)
    return z, pixels


def work(rows: slice) -> dict[str, torch.Tensor]:
    """Everything that looks at the whole batch, on these rows of it."""
    z, pixels = data()
    z, pixels = z[rows], pixels[rows]
    index = torch.arange(8)[rows]
    torch.manual_seed(1)
    out = {}

    quantizer = VQ(
        VQConfig(codebook_size=6, dim=4, update="ema", revive_below=0.9, decay=0.5, init="data")
    ).train()
    quantizer.initialize(Latents(distributed.gather(z), ((5,),)), Rng(0))
    for step in range(3):
        quantizer.remember(quantizer(Latents(z, ((5,),))))
        out["revived"] = quantizer.after_step(Rng(0, "r", step))["revived_codes"]
    out |= {f"vq.{k}": v.detach().clone() for k, v in quantizer.state_dict().items()}

    logits = z.flatten(0, 1).clone().requires_grad_()
    entropy = batch_entropy(logits, 4)
    entropy.backward()
    out["entropy"] = entropy.detach()
    # A process' gradients count 1/world each.
    out["entropy_grad"] = distributed.gather(logits.grad / distributed.world_size())

    # Scales that some images lose: losses and entropies over those of the whole batch that keep
    # them.
    scales = {"kind": "multi_scale", "scales": [1, 2], "phi": {"count": 2}}
    atom = {"kind": "lfq", "bits": 2, "sphere": True, "entropy_group": 2}
    tree = {"kind": "product", "quantizer": scales | {"quantizer": atom, "normalize": True}}
    scales = build(validate_part("quantizer", tree))
    spec = scales.layout(((2, 2),)).spec
    drop = build(LevelDropoutConfig(proportion=0.9, start=1))
    levels = drop.draw(spec, index, Rng(0, "l"), Progress(0, 1)).levels
    out["levels"] = distributed.gather(levels)
    latents = z[:, :4].clone().requires_grad_()
    made = scales(Latents(latents, ((2, 2),)), Draws(levels=levels))
    sum(made.losses.values()).backward()
    out |= {f"scales.{n}": distributed.mean(one.detach()) for n, one in made.losses.items()}
    out["scales.grad"] = distributed.gather(latents.grad / distributed.world_size())
    weight = scales.parts[1].phis[0].weight.grad
    out["scales.phi"] = distributed.mean(weight)

    part = build(LatentPerturbationConfig(proportion=0.4, neighbours=50))
    spec = TokenSpec(blocks=((5,),), vocab=(60,))
    ranks = part.draw(spec, index, Rng(0, "p"), Progress(0, 1)).ranks
    out["ranks"] = distributed.gather(ranks)
    for share in SHARES:
        part = build(LatentPerturbationConfig(proportion=share, neighbours=50))
        ranks = part.draw(spec, index, Rng(0, "p", 1), Progress(0, 1)).ranks
        out[f"perturbed.{share}"] = distributed.gather((ranks > 0).flatten(1).any(1))

    loss = AdversarialLoss(
        AdversarialConfig(start=0, lecam=1.0, discriminator={"kind": "patchgan", "width": 8})
    )
    _, logged = loss.discriminate(loss.discriminator, pixels, 1 - pixels)
    loss.after_step()
    out["lecam"] = logged["lecam"].detach()
    out["ema_real"], out["ema_fake"] = loss.discriminator.ema_real, loss.discriminator.ema_fake
    layer = torch.nn.Parameter(torch.ones(3))
    mine = (pixels.mean((0, 2, 3)) * layer).sum()
    out["balance"] = loss.balance(mine, (layer**2 * pixels.mean()).sum(), layer)

    student = z.mean(1).clone().requires_grad_()
    teacher = z.amax(1).clone().requires_grad_()
    counts = (index % 3 != 0).float()
    infonce = symmetric_infonce(student, teacher, counts, pixels.mean((1, 2, 3)), 2.0)
    cosine = global_mean(negative_cosine(student, teacher), counts, torch.ones(len(z)))
    (infonce + cosine).backward()
    out["infonce"], out["cosine"] = infonce.detach(), cosine.detach()
    for name, side in (("student_grad", student), ("teacher_grad", teacher)):
        out[name] = distributed.gather(side.grad / distributed.world_size())
    return out


def process(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    assert (distributed.rank(), distributed.world_size()) == (rank, 2)
    out = work(slice(rank * 4, rank * 4 + 4))
    torch.save(out, Path(folder) / f"{rank}.pt")
    # As beside NCCL, which carries no tensors of the CPU: they go over a group of their own.
    dist.get_backend = lambda: "nccl"
    own = distributed._group(torch.zeros(1))
    assert own is distributed._group(torch.zeros(2)) and own is not None
    assert distributed._group(torch.zeros(1, device="meta")) is None
    assert distributed.gather(torch.tensor([rank])).tolist() == [0, 1]
    assert distributed.sum_(torch.tensor([rank + 1])).tolist() == [3]
    assert distributed.agree(rank == 1) == 1.0
    assert distributed.largest_(torch.tensor([rank, 1 - rank, -1])).tolist() == [1, 1, -1]
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    whole = work(slice(0, 8))
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(process, (port, folder), nprocs=2)
        halves = [torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)]
    for share in SHARES:
        assert int(halves[0][f"perturbed.{share}"].sum()) == int(8 * share)
    assert whole["vq.usage"].sum() > 0 and whole["revived"] >= 1
    lost = (~whole["levels"].all(1)).view(2, 4).sum(1)
    assert lost[0] != lost[1]  # or their shares were the processes' own
    for name, expected in whole.items():
        for half in halves:
            torch.testing.assert_close(half[name], expected, atol=1e-5, rtol=1e-5, msg=name)


def test_one_process_changes_nothing():
    x = torch.ones(3)
    assert distributed.mean(x) is x and distributed.gather(x) is x and distributed.sum_(x) is x
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
