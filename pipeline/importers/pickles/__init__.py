"""Pickles read as data: no class, function or module of a file is ever loaded or called; add no opcode that would."""
