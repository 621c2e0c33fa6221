"""Sandboxes on more than one machine: `Fleet`, on top of Dask distributed. Needs the extra `dask`.

Each worker of the cluster is a node: a plugin makes its sandboxes there, and clients reach it over Dask's own
connections. `recipe` has the values, `node` and `sandbox` the worker's side, `link`, `box` and `fleet` the client's.
"""

from __future__ import annotations

from .box import Box as Box
from .errors import NodeLost as NodeLost, NoNode as NoNode, RecipeRefused as RecipeRefused
from .fleet import Fleet as Fleet
from .values import NodeInfo as NodeInfo, NodeResponse as NodeResponse, Recipe as Recipe
