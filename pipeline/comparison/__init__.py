"""`hnas compare`: methods side by side on one signal, with many seeds each, as numbers, text and a figure.

`specs.py` parses the request. `driver.py` and `worker.py` run the searches. `statistics.py` and `table.py` compute
Table 3 of the paper from the results, `curves.py` Figure 2; `report.py` and `figures.py` show them.
"""
