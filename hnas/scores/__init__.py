"""Training-free scores of networks at initialisation, one per file, behind one protocol.

    registry    the scores by name, and parsing of lists such as `naswot,zico`
    protocol    what a score is computed from: statistics of the engine's passes, or the network itself
    compute     all metrics and scores of one network, `hnas.compute_metrics`

A new score is a file here and a line in `registry`, or a class of another package under the entry-point group
`hnas.scores`. Scores are computed in the precision of the network and summed in float64.
"""
