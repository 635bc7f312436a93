"""NAS-Bench-101: `cell` parses and hashes cells, `enumeration` lists all, `network` builds, `space` is the space."""
