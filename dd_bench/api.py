"""The public API for plug-ins: the base classes and contexts of `dd_bench.contracts`, and shared functions.

A plug-in imports everything from here.

Shape letters: `n` samples, `c` channels, `h w` height and width, `k` classes, `b` images of one class in a batch,
`d` embedding dimension, `p` parameters in one flat vector, `r` repeats. `ipc` is images per class.
"""

from __future__ import annotations

from dd_bench.contracts import DistillContext, EvaluationContext, Evaluator, Measurement, Method
from dd_bench.data.dataset import RealSet, Split, tensor_set
from dd_bench.data.decode import decode, encode, tile
from dd_bench.data.graph_dataset import GraphSplit, training_graphs
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, segment_indices
from dd_bench.data.inputs import Inputs, LazyInputs
from dd_bench.data.node_dataset import NodeSplit, training_nodes
from dd_bench.data.nodes import Adjacency, NodeGraph, NodeShape, undirected
from dd_bench.data.preprocess import Preprocess, channel_statistics, fit_preprocess
from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.distillation.clusters import centroids, nearest_unused, representatives
from dd_bench.distillation.coreset import build_coreset
from dd_bench.distillation.init import (
    check_class_sizes,
    class_labels,
    initial_images,
    random_index,
    random_rows,
)
from dd_bench.distillation.matching import check_norm, class_chunks, mean_match, real_batch
from dd_bench.distillation.ranking import PICKS, Pick, select_ranked
from dd_bench.distillation.unroll import (
    GRADIENTS,
    CompiledDifferentiator,
    Differentiator,
    EagerDifferentiator,
    EpochTarget,
    InnerLoop,
    InnerStep,
)
from dd_bench.evaluation.curves import Curve, CurveFolder, recorded_curve
from dd_bench.evaluation.fresh_networks import FreshNetworks, LabelCost
from dd_bench.evaluation.graph_metrics import GRAPH_METRICS, GraphMetric, graph_score, majority, size_only
from dd_bench.evaluation.node_baselines import label_propagation, largest_class
from dd_bench.evaluation.selection import StackedBest
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network, batch_coupled, executed_norms
from dd_bench.records.best_runs import VALIDATION
from dd_bench.records.intervals import paired_difference, t_interval
from dd_bench.records.record import Score
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.checkpoint import State, Stateful
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import generator, seed_for, seeded
from dd_bench.runtime.shards import Shard
from dd_bench.runtime.transfer import to_device
from dd_bench.runtime.workers import Tick, no_tick, run_in_processes
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, SyntheticGraphs, TreeSet, Weighting
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.nodes import CONTEXT, NodeSet
from dd_bench.synthetic.quantised import QuantisedSet
from dd_bench.teachers.backbones import Backbone
from dd_bench.teachers.context import check_backbone
from dd_bench.teachers.dynamics import OUTPUTS, Dynamics, training_dynamics
from dd_bench.teachers.expert_buffer import ExpertBuffer, Storage
from dd_bench.teachers.experts import experts
from dd_bench.teachers.feature_networks import class_embeddings, feature_network, untrained_feature_network
from dd_bench.teachers.released_experts import released_experts
from dd_bench.teachers.soft_labels import labelled_data
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.teachers.teachers import Teacher
from dd_bench.teachers.trained_network import (
    RealTraining,
    cache_entry,
    checkpoint_in,
    reading_entry,
    trained_network,
)
from dd_bench.training.augment import Augment, Draw
from dd_bench.training.batches import LabelledBatches, fetch_from, fetch_split
from dd_bench.training.compilation import uses_compilation
from dd_bench.training.linear_head import head_gradient, one_hot, ridge_weights, unit_rows
from dd_bench.training.loop import train
from dd_bench.training.losses import Loss, Target, Weighted, at_least_float32, classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork
from dd_bench.training.protocol import ProbeRecipe, Protocol
from dd_bench.training.recipe import Recipe, parse
from dd_bench.training.resume import Checkpoints
from dd_bench.training.scoring import accuracy, correct_by_class, eval_batch_size, eval_batches
from dd_bench.training.views import ViewRecipe, Views, augment_images, boxes

__all__ = [
    "CONTEXT",
    "GRADIENTS",
    "GRAPH_METRICS",
    "OUTPUTS",
    "PICKS",
    "VALIDATION",
    "Adjacency",
    "Architecture",
    "Augment",
    "Backbone",
    "Cache",
    "Checkpoints",
    "CompensatedSet",
    "CompiledDifferentiator",
    "Curve",
    "CurveFolder",
    "Differentiator",
    "DistillContext",
    "Diverged",
    "Draw",
    "Dynamics",
    "EagerDifferentiator",
    "EpochTarget",
    "EvaluationContext",
    "Evaluator",
    "ExpertBuffer",
    "FreshNetworks",
    "FunctionalNetwork",
    "GraphMetric",
    "GraphSet",
    "GraphShape",
    "GraphSplit",
    "Graphs",
    "HookedTeacher",
    "ImageSet",
    "InnerLoop",
    "InnerStep",
    "Inputs",
    "LabelCost",
    "LabelledBatches",
    "LazyInputs",
    "Loss",
    "Measurement",
    "Method",
    "Network",
    "NodeGraph",
    "NodeSet",
    "NodeShape",
    "NodeSplit",
    "Pick",
    "Preprocess",
    "ProbeRecipe",
    "Progress",
    "Protocol",
    "QuantisedSet",
    "RealSet",
    "RealTraining",
    "Recipe",
    "Runtime",
    "Score",
    "Shard",
    "Split",
    "StackedBest",
    "State",
    "Stateful",
    "Storage",
    "SyntheticGraphs",
    "SyntheticImages",
    "SyntheticSet",
    "Target",
    "Teacher",
    "TeacherSpec",
    "Tick",
    "TreeSet",
    "ViewRecipe",
    "Views",
    "Weighted",
    "Weighting",
    "accuracy",
    "at_least_float32",
    "augment_images",
    "batch_coupled",
    "boxes",
    "build_coreset",
    "cache_entry",
    "centroids",
    "channel_statistics",
    "check_backbone",
    "check_class_sizes",
    "check_norm",
    "checkpoint_in",
    "class_chunks",
    "class_embeddings",
    "class_labels",
    "classification_loss",
    "coalesce",
    "correct_by_class",
    "decode",
    "encode",
    "eval_batch_size",
    "eval_batches",
    "executed_norms",
    "experts",
    "feature_network",
    "fetch_from",
    "fetch_split",
    "fit_preprocess",
    "generator",
    "graph_score",
    "head_gradient",
    "initial_images",
    "label_propagation",
    "labelled_data",
    "largest_class",
    "majority",
    "mean_match",
    "nearest_unused",
    "no_tick",
    "one_hot",
    "paired_difference",
    "parse",
    "random_index",
    "random_rows",
    "reading_entry",
    "real_batch",
    "recorded_curve",
    "released_experts",
    "representatives",
    "ridge_weights",
    "run_in_processes",
    "seed_for",
    "seeded",
    "segment_indices",
    "select_ranked",
    "size_only",
    "t_interval",
    "tensor_set",
    "tile",
    "to_device",
    "train",
    "trained_network",
    "training_dynamics",
    "training_graphs",
    "training_nodes",
    "undirected",
    "unit_rows",
    "untrained_feature_network",
    "uses_compilation",
    "write_atomic",
]
