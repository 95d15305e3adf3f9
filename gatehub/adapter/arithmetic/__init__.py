"""Adapters made of adapters: fewer bytes for one, and several of them as one.

A gate matrix M is to a frozen convolution what a weight matrix is to a linear layer, so what is
done to weight matrices is done to M, measured from 1 (arXiv 2602.06245; `gatehub.inheritance`).
"""

from gatehub.adapter.arithmetic.compression import Compression, prune_gates, reduce_rank
from gatehub.adapter.arithmetic.merging import merge_adapters

__all__ = ["Compression", "merge_adapters", "prune_gates", "reduce_rank"]
