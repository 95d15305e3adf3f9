"""What feed-forward and convolutional networks inherit from each other (arXiv 2602.06245).

Feed-forward networks are convolutional ones: `embed` turns a stack of `Linear` and what stands
between into an equal network of convolutions, so whatever works on convolutions works on it.

The other way is narrower. A projected convolution is a layer of feed-forward nodes
(`view_as_nodes`), whose weights are the gates:

    y_o = b_o + Σ_i M[o, i] s_oi(x_i)        s_oi(x_i) = K(W)[o, i] * x_i, fixed

In a feed-forward layer all nodes read the same inputs x_i: they are homogeneous, and the layer is
one product M x. Here node o reads s_oi(x_i), inputs of its own, and the layer is no product of M
with anything. So what treats the weights of one node, or each weight alone, carries over; what
needs the layer to be a product does not. Each line has its test in
tests/inheritance/test_techniques.py.

Carries over:

| test_… | what, on M | why |
|---|---|---|
| decay | decay towards 1, the backbone | it acts on each weight alone |
| drop_connect | DropConnect | a dropped weight is a dropped sub-function |
| pruning | pruning of M - 1 by magnitude | an entry at 1 is the backbone's own |
| low_rank | M - 1 of a rank, by SVD | it bounds what is learned and stored |
| quantisation | rounding of M - 1 | a rounded weight scales a sub-function |
| averaging | means of several M | y is linear in M; s_oi gives each entry its meaning |
| task_arithmetic | sums of M - 1 | moves from one origin add |
| least_squares | least squares for each row | y_o is linear in M[o], on inputs of its own |

Excluded:

| test_… | what | it needs, and what is here |
|---|---|---|
| permutation | matching or doubling hidden units | columns that move with inputs; s_oi stays |
| weight_sharing | convolution of M over the inputs | inputs that mean the same; s_oi differs |
| rotation | rotated or whitened inputs | M x = (M R)(R' x); no R fits all nodes |
| thin_layers | low rank as two thin layers | M x = A (B' x); M * K(W) has full rank |
| shared_curvature | K-FAC, GPTQ: one E[x x'] | each node has E[s_o s_o'] of its own |
| input_norms | cosine layers, Wanda: one norm of x | each node has a norm of s_o of its own |
| spectral_norm | bounds by the norm of M, orthogonal M | the kernel decides, too; M begins at 1 |
"""

from gatehub.inheritance.embedding import embed
from gatehub.inheritance.nodes import FeedForwardNodes, view_as_nodes

__all__ = ["FeedForwardNodes", "embed", "view_as_nodes"]
