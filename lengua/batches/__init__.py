"""Rows -> batches. What is random (order, margin, which batches are padded) is a function of (seed, epoch, id).

    drawn = Drawing(batch_size=8, margin_s=(0.3, 1.5), padded_share=0.1, seed=17)
    sampler = sampler_of(split, drawn)            # yields lists of Draw, clips of like length together; or of Pack
    loader = DataLoader(ClipDataset(split), batch_sampler=sampler, collate_fn=Collator(tokenizer, "es"))
    loader = DataLoader(StreamedBatches(stream, drawn, batches=500), batch_size=None, collate_fn=...)

The samplers decide everything; dataset and collator keep no state, so they work in any process. A stream is drawn from
block by block, each as if it were a small split, and knows the place after its last batch: set, it goes on from there.
A `lengua.replay.Mixture` is drawn from like a split; an epoch has all of its own clips and some of those replayed.
"""

from lengua.batches.clips import Clip, ClipDataset, Collator, PackedClip
from lengua.batches.drawing import Draw, Drawing, Pack
from lengua.batches.masks import Masks
from lengua.batches.packing import Packing
from lengua.batches.samplers import LengthBuckets, PackedWindows, Sampler, dev_batches, sampler_of
from lengua.batches.streaming import Place, StreamedBatches

__all__ = [
    "Clip",
    "ClipDataset",
    "Collator",
    "Draw",
    "Drawing",
    "LengthBuckets",
    "Masks",
    "Pack",
    "PackedClip",
    "PackedWindows",
    "Packing",
    "Place",
    "Sampler",
    "StreamedBatches",
    "dev_batches",
    "sampler_of",
]
