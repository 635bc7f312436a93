"""Training-free scores of networks at initialisation, one a file, behind one protocol.

    registry    the scores by name, and the names in a text such as `naswot,zico`
    protocol    what a score is computed from: the statistics of the engine's passes, or the network itself
    compute     all numbers of one network, `hnas.compute_metrics`

A new score is a file here and a line in `registry`, or a class of another package under the entry-point group
`hnas.scores`. All are computed in the precision of the network, and summed in float64.
"""
