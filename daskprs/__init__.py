"""daskprs: ParallelRunStep on Dask."""
