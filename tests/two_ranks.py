"""Two processes of a distributed run on this machine."""

import torch
from torch import distributed, multiprocessing


def on_two_ranks(work, folder):
    """Return what ``work(rank, folder)`` returned on each; it and its result must go through a file."""
    multiprocessing.spawn(_on_one, (work, str(folder)), nprocs=2)
    return [torch.load(f"{folder}/rank{rank}.pt") for rank in range(2)]


def _on_one(rank, work, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(work(rank, folder), f"{folder}/rank{rank}.pt")
    distributed.barrier()  # a rank that leaves early closes the connection on the other
    distributed.destroy_process_group()
