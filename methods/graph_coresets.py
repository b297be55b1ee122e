"""Selection of graphs by features: that of images, in the embedding of a network of graphs trained for steps.

A recipe of images diverges on readouts that sum over hundreds of nodes, and is thirty steps on a small collection:
`conf/method/herding_graphs.yaml` and its neighbours have one of 500 steps of Adam.
"""

from __future__ import annotations

from .herding import Herding
from .kcenter import KCenter
from .kmeans import KMeans


class GraphHerding(Herding):
    """Herding (Welling, ICML 2009) of graphs."""

    modalities = ("graph",)
    citation = Herding.citation


class GraphKCenter(KCenter):
    """K-Center (Sener and Savarese, ICLR 2018) of graphs."""

    modalities = ("graph",)
    citation = KCenter.citation


class GraphKMeans(KMeans):
    """The graph nearest to each k-means centroid of a class."""

    modalities = ("graph",)
    citation = KMeans.citation
