"""What the losses share that need the batches of all processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradient."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Put the rows of all processes below each other, by rank, without gradient.

    Args:
        rows: ``(B, ...)``; ``B`` may differ from process to process.

    Returns:
        ``(sum of all B, ...)``, the same on every process, and the number of rows in it
        before this process's own.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows, 0
    counts = torch.zeros(world_size(), dtype=torch.long, device=rows.device)
    counts[dist.get_rank()] = rows.shape[0]
    counts = sum_over_processes(counts).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[:rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    own = [part[:count] for part, count in zip(gathered, counts, strict=True)]
    return torch.cat(own), sum(counts[:dist.get_rank()])
