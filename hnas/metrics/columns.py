"""Names of what the engine computes, for those who need no torch."""

COLUMNS = ("grad_norm", "grad_norm_l2", "snip", "snip_inner", "grasp", "grasp_abs", "trace", "kappa")
NTK_MODES = ("summed", "exact")

#: Version of the numbers: raised whenever a change moves a stored value by more than rounding.
ENGINE_VERSION = 1
