"""The search itself: the objective (7), the Gaussian process that proposes (μ, ν), and Algorithm 1 on top of them.

Plain arrays and callables go in and out; nothing here reads a file or knows of a store.
"""
