"""How much memory a forward pass takes."""

from __future__ import annotations

from functools import partial

import torch

from sightline.backbones import Backbone
from sightline.backbones.contract.reducer import Reducer
from sightline.export.latency import evaluating, example_clips
from sightline.relevance.memory import PeakMemory


def peak_memory(backbone: Backbone, batch: int = 1, reducer: Reducer | None = None) -> int:
    """Return the bytes that a backbone's weights, a batch of clips and all that is alive at once in a pass take.

    Other models on the same device do not count; what a layer keeps from pass to pass (Video Swin's bias) does. On a
    GPU the allocator is asked, so that a kernel's workspace counts; on a CPU the tensors are counted.
    """
    device = next(backbone.parameters()).device
    clips = example_clips(backbone, batch)
    run = backbone if reducer is None else partial(backbone, reducer=reducer)
    standing = sum(tensor.nbytes for tensor in (*backbone.parameters(), *backbone.buffers(), clips))
    with torch.no_grad(), evaluating([backbone]):
        run(clips)  # loads kernels, and fills caches that depend on sizes alone and are shared by all models
        backbone.eval()  # drops what layers keep, so that it is made anew and counted
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            run(clips)
            return standing + torch.cuda.max_memory_allocated(device) - before
        with PeakMemory() as memory:
            run(clips)
        return standing + memory.peak
