"""Expression graphs, canonical forms and forward passes that several spaces share; no space is known by name here."""
