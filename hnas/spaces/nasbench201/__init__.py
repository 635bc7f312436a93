"""NAS-Bench-201: `cell` parses architecture strings, `network` builds networks, `space` is the search space."""
