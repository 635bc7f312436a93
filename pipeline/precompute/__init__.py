"""From a request to stored rows: the plan, the claims on it, its chunks, and the workers that compute them.

This package plans, splits and distributes work. `hnas.metrics` defines what a row contains, `hnas.pipeline.store` where
it is stored. `driver.py` puts it all together. `worker.py` does not use Dask; that is the job of `cluster`.
"""
