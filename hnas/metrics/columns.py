"""Names of the engine's results, importable without torch."""

COLUMNS = ("grad_norm", "grad_norm_l2", "snip", "snip_inner", "grasp", "grasp_abs", "trace", "kappa")
NTK_MODES = ("summed", "exact")

#: Version of the numbers. Raise it with every change that moves a stored value by more than rounding.
ENGINE_VERSION = 1
