"""The search: the objective (7), the Gaussian process that proposes (μ, ν), Algorithm 1 on top, and other methods.

The interface is plain arrays and callables; nothing here reads files or knows the store.
"""
