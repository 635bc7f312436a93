"""The theory of HNAS, checked numerically on small networks in float64.

    networks         fully connected networks as arrays, and their tangent kernel
    connections      Theorem 1: three metrics bounded by the trace norm
    descent          real gradient descent, and the training error that Θ₀ predicts
    generalisation   Theorem 2 and its corollaries, with a fitted constant
    topology         Theorem 3 and Figure 3: a wide and a deep architecture
    statements       every statement with its measured number

Source: Shu, Dai, Wu, Low, NeurIPS 2022. Results that are not in the paper are marked as derived.
"""

from hnas.theory.results import Check
from hnas.theory.statements import checks
from hnas.theory.topology import Topology, figure3

__all__ = ["Check", "Topology", "checks", "figure3"]
