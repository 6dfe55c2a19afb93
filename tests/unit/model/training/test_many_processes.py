"""Distributed training, as two processes on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from tiny_training import options, tiny_train

from model.training.loop import train

_SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from model import recipes
from model.network import encoders
from model.training import loop
from tiny_training import TINY_VGG, options, tiny_network, tiny_train
encoders._VGG_BLOCKS = TINY_VGG
recipes.RECIPES["tiny"] = tiny_network
photos, out = Path(sys.argv[1]), Path(sys.argv[2])
runs, seen = [], []
class Run(loop._Run):
    def __init__(self, *args):
        super().__init__(*args)
        runs.append(self)
    def update(self, batch, rate, gap):
        seen.append(int(batch.frames.long().sum()))
        return super().update(batch, rate, gap)
loop._Run = Run
loop.train(tiny_train((1, 2)), options(photos, out, devices=2, max_minutes=0.0))
run = runs[0]
found = {
    "weights": run.network.state_dict(),
    "averaged": run.averaged.module.state_dict(),
    "loss": run.loss.state_dict(),
    "done": run.done,
    "seen": seen,
}
torch.save(found, out / f"rank{run.fabric.global_rank}.pt")
run.fabric.barrier()
"""


def test_two_processes_resume_stop_together_and_hold_equal_weights(photos: Path, tmp_path: Path) -> None:
    # The first step alone, so that the two have something to resume from.
    assert train(tiny_train((1, 2)), options(photos, tmp_path, max_minutes=0.0)).steps == 1
    script = tmp_path / "two.py"
    script.write_text(_SCRIPT)
    here = Path(__file__).resolve()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here.parents[4]), str(here.parent)]),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(script), str(photos), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert ours["done"] == theirs["done"] == 2
    # Each saw clips of its own, so that only the exchange of gradients can have kept them equal.
    assert len(ours["seen"]) == 1 and not set(ours["seen"]) & set(theirs["seen"])
    for part in ("weights", "averaged", "loss"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part]), part
    # The checkpoint is the network's own, not the wrapper's.
    saved = torch.load(tmp_path / "checkpoint.pt")
    assert saved["step"] == 2
    assert saved["weights"].keys() == ours["weights"].keys()
    assert not any("module" in name for name in saved["weights"])
    assert all(torch.equal(saved["weights"][name], ours["weights"][name]) for name in ours["weights"])
    assert saved["loss_weights"]["log_variance"].abs().sum() > 0
