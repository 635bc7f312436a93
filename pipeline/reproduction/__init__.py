"""The tables and figures of the HNAS paper, computed from a store and printed beside the published numbers.

Each table or figure is a module with one function, `compute`. It reads the catalog, computes missing numbers where that
takes seconds, and returns a `hnas.pipeline.reproduction.results.Reproduction`, which lists the numbers that it lacks
and the commands that provide them. `published` holds the paper's numbers, `bootstrap` computes intervals over
architectures, `report` writes the formats, and `figures` draws.

Source: Shu, Dai, Wu, Low, "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search", NeurIPS
2022.
"""
