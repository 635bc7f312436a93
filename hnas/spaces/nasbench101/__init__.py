"""NAS-Bench-101: `cell` reads and hashes cells, `enumeration` lists them all, `network` builds, `space` offers."""
