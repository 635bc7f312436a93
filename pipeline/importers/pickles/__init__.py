"""Pickles read as data. Never add an opcode that loads or calls a class, function or module named by the file."""
