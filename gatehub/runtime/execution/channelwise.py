"""Many `scale` tasks in one pass: shared kernels, and each image's own factors around them.

A `scale` gate is M = a bᵀ, so W' x = a · (W (b · x)): b multiplies the channels that go in, a those
that come out, and the kernel itself is the backbone's for every task. Norm values are vectors of
channels too. One pass over a batch then serves another task with each image (cf. BatchEnsemble,
arXiv 2002.06715, equation 5).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub.compiler.lowering import Run, compile_graph
from gatehub.compiler.partition import find_rest, partition
from gatehub.compiler.program import Program, read_lookup
from gatehub.compiler.stem import Stem, lower
from gatehub.gates.fold import GateState
from gatehub.gates.layout_plan import LayoutPlan
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.factor_graph import FactorGraph
from gatehub.runtime.execution.factors import FactorSource, TaskVectors
from gatehub.runtime.execution.rewrite_rules import NoRule, Rewriting, rewrite


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnePass:
    """A network in which each image has factors of its own.

    Args:
        body: (images, weights, factors: (B, V)) → what crosses over to the heads.
        heads: the rest of the program, which depends on each task's head.
        sources: how each run of factors is read from a task, in their order within V.
        length: V.
        weights: names of the weights that it reads, but for the heads'.
        plan: of the tasks' layout.
    """

    body: Run
    heads: Stem
    sources: tuple[FactorSource, ...]
    length: int
    weights: frozenset[str]
    plan: LayoutPlan

    def factors(self, merged: MergedBackbone, task: GateState, *, dtype: torch.dtype) -> Tensor:
        """Return a task's factors: (V,)."""
        vectors = TaskVectors(merged, task, self.plan)
        return torch.cat([source.read(vectors).reshape(-1) for source in self.sources]).to(dtype)


def build_one_pass(
    program: Program, merged: MergedBackbone, plan: LayoutPlan, *, heads: Collection[str]
) -> OnePass | None:
    """Rewrite a program so that one pass serves many tasks of a layout.

    Args:
        program: of the merged backbone.
        merged: that backbone.
        plan: what its tasks have of their own.
        heads: names of the head's tensors in the model.

    Returns:
        None where a gate is of another kind than `scale`, an operation reads a task's values in a
        way for which there is no rule, or none reads them at all.
    """
    if not plan.is_scale:
        return None
    parts = partition(program, heads)
    if parts is None:
        return None
    into = FactorGraph(program, plan)
    try:
        _rewrite(program, Rewriting(into=into, merged=merged, plan=plan), heads)
    except NoRule:
        return None
    # Where nothing that runs is the tasks' own, their stem is everything.
    if not into.sources or not all(node in into for node in parts.crossing):
        return None
    body = into.finish(parts.crossing)
    lookups = map(read_lookup, body.nodes)
    return OnePass(
        body=compile_graph(body),
        heads=lower(parts),
        sources=tuple(into.sources),
        length=into.length,
        weights=frozenset(lookup.name for lookup in lookups if lookup is not None),
        plan=plan,
    )


def _rewrite(program: Program, rewriting: Rewriting, heads: Collection[str]) -> None:
    """Copy what stands in front of the heads, with factors where a task's vectors were read.

    Raises:
        NoRule: an operation reads them in a way for which there is no rule.
    """
    into, rest = rewriting.into, find_rest(program, heads)
    for node in program.graph.nodes:
        is_own = into.find_vector(node) is not None
        reads_own = any(into.find_vector(source) is not None for source in node.all_input_nodes)
        if node in rest:
            if reads_own:
                raise NoRule  # behind the heads, weights are the backbone's and the heads'
        elif reads_own:
            rewrite(node, rewriting)
        elif node.op != "output" and not is_own:
            into.copy(node)
