"""Where functions of assets are called, when that is not the worker: commands, Dask, Ray.

```python
from flowstone.compute import DaskCompute

flow = FlowStone(assets, compute={"dask": DaskCompute("tcp://scheduler:8786")})
```

Each is imported when it is used, and needs its extra then.
"""

from __future__ import annotations

from flowstone.compute.command import CommandCompute
from flowstone.compute.dask import DaskCompute
from flowstone.compute.ray import RayCompute

__all__ = ["CommandCompute", "DaskCompute", "RayCompute"]
