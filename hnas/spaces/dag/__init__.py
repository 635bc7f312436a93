"""Expression graphs, canonical forms and forward passes shared by several spaces, independent of any space."""
