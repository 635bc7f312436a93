"""NAS-Bench-201: `cell` reads architecture strings, `network` builds, `space` offers."""
