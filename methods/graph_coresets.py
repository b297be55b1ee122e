"""Feature-based coresets of graphs, which differ from those of images only in the feature network's recipe.

The recipe of the image coresets does not suit graphs. Training diverges if the readout sums over hundreds of nodes, and
a small dataset gives only about thirty steps. The configurations for graphs, e.g. `conf/method/herding_graphs.yaml`,
use 500 Adam steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .herding import Herding
from .kcenter import KCenter
from .kmeans import KMeans


class GraphHerding(Herding):
    """Herding (Welling, ICML 2009) of graphs."""

    modalities = ("graph",)
    citation = Herding.citation
    smoke: ClassVar[dict[str, Any]] = {"teacher.steps": 10}


class GraphKCenter(KCenter):
    """K-Center (Sener and Savarese, ICLR 2018) of graphs."""

    modalities = ("graph",)
    citation = KCenter.citation
    smoke: ClassVar[dict[str, Any]] = {"teacher.steps": 10}


class GraphKMeans(KMeans):
    """The graph nearest to each k-means centroid of a class."""

    modalities = ("graph",)
    citation = KMeans.citation
    smoke: ClassVar[dict[str, Any]] = {"teacher.steps": 10}
