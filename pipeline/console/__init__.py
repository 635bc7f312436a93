"""What `cli` needs to talk: streams, signals, completion, the parser's errors, and `hnas sql` from statement to file.

Reads the catalog and the names in a store, never what other rooms compute; each room renders its own results.
"""
