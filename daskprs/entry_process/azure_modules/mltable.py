"""``import mltable``, where that package is not installed."""

from daskprs.yaml_jobs.modules.mltable import MLTable, __getattr__, load

__all__ = ["MLTable", "__getattr__", "load"]
