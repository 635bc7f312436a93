"""The operations that the metrics know, one per file: value, adjoint, and rule for tangents.

An elementwise function that torch differentiates twice needs only its name in the list of `pointwise`. Put another
operation into its own file here and add the file to the imports below. It registers its functions with
`hnas.metrics.recorder`: `register` takes their tangent rule, a `hnas.metrics.tape.TangentRule`, and whether their
results keep the order of the samples (functions that have no rule yet are registered at the end of `pointwise`);
`handles` and `replace` make them run in another way than their own. Functions that are not registered run unchanged. If
a network calls one, autograd differentiates it twice for GraSP, and layers behind the call need extra passes to assign
their rows to samples.

    layer           what convolutions and linear maps share: the node of the graph, the tangent rule
    convolution     F.conv1d, conv2d, conv3d
    linear          F.linear
    batch_norm      F.batch_norm
    pooling         average and max pooling
    concat          concatenation
    arithmetic      sums, products, quotients
    pointwise       ReLU and other elementwise functions
    hard_sigmoid    F.hardsigmoid
    tensors         reshaping, slicing, padding, means, and other functions that are linear in one tensor
    attention       scaled dot-product attention, unfused so that its layers are seen
    dropout         dropout and random slopes, switched off
    linear_rule     the tangent rule of functions that are linear in their inputs
"""

from hnas.metrics.ops import (  # noqa: F401  (each registers its functions)
    arithmetic,
    attention,
    batch_norm,
    concat,
    convolution,
    dropout,
    hard_sigmoid,
    linear,
    pointwise,
    pooling,
    tensors,
)
