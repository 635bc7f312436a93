"""DARTS: `text` and `genotype` parse, `canonical` and `layout` normalise, `network` builds, `space` is the space."""
