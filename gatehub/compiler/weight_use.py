"""How the operations of a graph use each weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from gatehub.compiler.kernels import is_convolution
from gatehub.compiler.program import read_lookup, read_value


def find_weights(graph: fx.Graph) -> frozenset[str]:
    """Return the names of the weights that something reads."""
    lookups = (read_lookup(node) for node in graph.nodes if node.users)
    return frozenset(lookup.name for lookup in lookups if lookup is not None)


def find_kernels(graph: fx.Graph) -> frozenset[str]:
    """Return the names of the weights that nothing but convolutions of one setting reads."""
    return frozenset(
        name
        for name, convolutions in find_convolutions(graph).items()
        if len({repr(convolution.args[3:]) for convolution in convolutions}) == 1
    )


def find_matrices(graph: fx.Graph) -> frozenset[str]:
    """Return the names of those kernels that only take part in matrix products.

    They have one row and column, and so have the images that they meet.
    """
    found = find_convolutions(graph)
    products = (name for name, convolutions in found.items() if all(map(_is_product, convolutions)))
    return find_kernels(graph).intersection(products)


def is_read_as_kernel(weight: fx.Node) -> bool:
    """Whether a lookup is read as the kernel of convolutions, and in no other way."""
    return all(
        is_convolution(user.target)
        and [place for place, given in enumerate(user.args) if given is weight] == [1]
        and weight not in user.kwargs.values()
        for user in weight.users
    )


def find_convolutions(graph: fx.Graph) -> Mapping[str, Sequence[fx.Node]]:
    """Return the convolutions of each weight that is read in no other way."""
    return {
        lookup.name: [*node.users]
        for node in graph.nodes
        if (lookup := read_lookup(node)) is not None and node.users and is_read_as_kernel(node)
    }


def _is_product(convolution: fx.Node) -> bool:
    """Whether a convolution is a matrix product: all that it reads and gives has one pixel."""
    images, kernel, *setting = _arguments(convolution)
    value, lookup, result = read_value(images), read_lookup(kernel), read_value(convolution)
    if value is None or lookup is None or result is None:
        return False
    padding = [size for given in setting[2:3] for size in given]
    sizes = {shape[2:] for shape in (*value.shapes, lookup.shape, *result.shapes)}
    # With padding and a stride, the one pixel of the answer can lie beside the image.
    return sizes == {(1, 1)} and value.shapes[0][1] == lookup.shape[1] and not any(padding)


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args
