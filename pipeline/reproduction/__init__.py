"""The tables and figures of the HNAS paper, computed from a store and printed beside the published numbers.

Each is a module with one function `compute`, which reads the catalog, computes what is missing where that takes
seconds, and returns a `hnas.pipeline.reproduction.results.Reproduction`. What it cannot compute it names, with the
command that brings it. `published` has the paper's numbers, `bootstrap` the intervals over architectures, `report` the
formats and `figures` the drawings.

Source: Shu, Dai, Wu, Low, "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search", NeurIPS
2022.
"""
