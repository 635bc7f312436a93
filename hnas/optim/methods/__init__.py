"""Search methods, one a file: HNAS and its rivals behind one protocol of `ask` and `tell`.

A new method is a file here and a line in `registry`, or a class of another package under the entry-point group
`hnas.methods`. A method sees the pool and the performances that it is told, never a table.
"""
