"""Search methods, one per file: HNAS and its competitors behind one ask-and-tell protocol.

A new method is a file here and a line in `registry`, or a class of another package under the entry-point group
`hnas.methods`. A method sees the pool and the performances of its own queries, never a table.
"""
