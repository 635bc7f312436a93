"""DARTS: `text` and `genotype` read genotypes, `canonical` and `layout` shape, `network` builds, `space` offers."""
