"""The operations of a network that the metrics know, one a file: its value, its adjoint, and how it maps tangents.

A new operation goes into a file of its own here, and that file into the imports below. It registers its functions with
`hnas.metrics.recorder`: by `register` their tangent rule, a `hnas.metrics.tape.TangentRule`, and whether their results
keep the samples in order (functions without a rule yet stand at the end of `pointwise`); by `handles` or `replace` a
way of running them that is not their own. A function that is not registered is run as it is: GraSP of a network that
calls it comes from autograd's double backward, and a layer behind it needs further passes to find out whose its rows
are.

    layer           what a convolution and a linear map have in common: the node of the graph, the tangent rule
    convolution     F.conv1d, conv2d, conv3d
    linear          F.linear
    batch_norm      F.batch_norm
    pooling         average and max poolings
    concat          concatenation
    arithmetic      sums, products, quotients
    pointwise       ReLU, and functions of each entry by itself
    tensors         reshaping, slicing, padding, means, and what else is linear in one tensor
    attention       scaled dot products, in sight instead of fused
    dropout         dropout and random slopes, which are switched off
    linear_rule     the tangent rule of functions that are linear in what they read
"""

from hnas.metrics.ops import (  # noqa: F401  (each registers its functions)
    arithmetic,
    attention,
    batch_norm,
    concat,
    convolution,
    dropout,
    linear,
    pointwise,
    pooling,
    tensors,
)
