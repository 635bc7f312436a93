"""`hnas compare`: methods side by side on one signal, many seeds each, as numbers, text and a figure.

Change here what a comparison says and how its searches are spread. `specs.py` reads what is asked for, `statistics.py`
and `table.py` make Table 3 of the paper of what was found, `curves.py` Figure 2; `report.py` and `figures.py`
show them.
"""
