"""From a request to stored rows: the plan, the claims on it, its chunks, and the workers that compute them.

Change here how work is planned, cut and handed out. What a row says is the business of `hnas.metrics`, and where it
lies of `hnas.pipeline.store`. `driver.py` is the order of it all; `worker.py` knows no Dask, whose room is `cluster`.
"""
