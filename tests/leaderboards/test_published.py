"""Numbers from papers: files, sources and budgets."""

import json
import re
from pathlib import Path

import pytest

from dd_bench.leaderboards.core import published as module
from dd_bench.leaderboards.core.method_info import links_of
from dd_bench.leaderboards.core.published import Published, load_published
from dd_bench.leaderboards.render.tables import _published as pages_of_published

FOLDER = Path(module.__file__).parents[1] / "published"
CHOSEN = {"full", "random", "herding", "kcenter", "kmeans", "el2n", "cad_prune"}
MATCHED = {"dc", "dsa", "dm", "datadam", "ncfm", "mtt", "ftd", "tesla", "datm"}
RECOVERED = {
    "sre2l", "cda", "rded", "infer", "infer_dyn", "sre2l_pp", "dwa", "g_vbsm", "edc", "cudd", "delt", "nrr_dd", "wmdd",
    "fadrm", "fadrm_plus", "cv_dd", "ogm", "cim",
}  # fmt: skip
GENERATED = {
    "dit", "ldm", "glad", "idc_1", "minimax", "d4m", "d4m_g", "igd", "mgd3", "mgd3_ldm", "d3hr", "cao2", "vlcp", "dap",
}  # fmt: skip
QUANTISED = {"ptqdc_dm", "ptqdc_dsa", "ptqdc_datm", "autopalette", "quadd_datm", "dcq"}
LABELS = {"lpld", "lpqld", "gift", "hald"}
PROBED = {"lgm", "centroid", "neighbours"}
NODES = {
    "random", "herding_nodes", "kcenter_nodes", "gcond", "gcondx", "doscondx", "gcdm", "sfgc", "ctrl", "coarsening",
    "dc_graph",
}  # fmt: skip
METHODS = CHOSEN | MATCHED | RECOVERED | GENERATED | QUANTISED | LABELS | PROBED | NODES


def test_every_committed_file_is_valid():
    sets = load_published(FOLDER)
    assert {s.dataset for s in sets} == {
        "citeseer",
        "cora",
        "cifar10",
        "cifar100",
        "fashion_mnist",
        "flickr_inductive",
        "imagefruit",
        "imageidc",
        "imagemeow",
        "imagenet100",
        "imagenet1k",
        "imagenet1k_64",
        "imagenet21k",
        "imagenette",
        "imagenette_224",
        "imagesquawk",
        "imagewoof",
        "imagewoof_224",
        "imageyellow",
        "mnist",
        "ogbn_arxiv",
        "reddit_inductive",
        "svhn",
        "tiny_imagenet",
    }
    assert len(sets) == len(list(FOLDER.glob("*.json")))
    for s in sets:
        assert list(FOLDER.glob(f"{s.dataset}*.json"))
        by_ipc = [c for c in s.cells if c.bits_of_ipc is None]
        assert {c.method for c in by_ipc} <= METHODS
        assert {c.method for c in by_ipc if c.ipc is None and c.ipc_stated} <= {"full"}


def test_a_budget_in_bits_is_never_an_ipc():
    cells = [(s, c) for s in load_published(FOLDER) for c in s.cells if c.method in QUANTISED]
    assert len(cells) == 23
    for s, c in cells:
        assert c.ipc is None and c.bits_of_ipc and not s.at(c.method, 1) and not s.at(c.method, 10)
    page = pages_of_published(load_published(FOLDER))
    assert re.search(
        r"ptqdc_dm +\| bits of IPC 10 × float32 +\| 51\.2† ", page[page.index("## cifar100, convnet") :]
    )


def test_a_number_without_a_stated_ipc_belongs_to_no_ipc():
    """HALD's README has its accuracy and the bytes of its labels, but not the IPC."""
    (found,) = (s for s in load_published(FOLDER) if (s.dataset, s.model) == ("imagenet1k", "unstated"))
    cells = [c for c in found.cells if c.method == "hald"]
    assert [(c.mean, c.budget, c.verified) for c in cells] == [
        (41.8, "not stated", True),
        (42.7, "not stated", False),
    ]
    assert all("285 MB" in c.protocol for c in cells) and found.at("hald", 10) == []
    assert re.search(r"\| hald +\| not stated +\| 41\.8 ", pages_of_published([found]))
    with pytest.raises(ValueError, match="ipc_stated"):
        Published(**CELL | {"ipc_stated": False})


def test_verified_agrees_with_the_source():
    for s in load_published(FOLDER):
        for c in s.cells:
            assert c.verified is c.source.startswith("read "), c
            assert c.verified is not c.source.startswith(("from memory", "secondary notes", "quoted ")), c


def test_numbers_that_a_table_repeats_are_quoted():
    """In the tables of CTRL and CIM, all but their own; elsewhere, those whose protocol is the one of another paper."""
    own = {"CTRL's table": "ctrl", "CIM's repository": "cim"}
    for s in load_published(FOLDER):
        for c in s.cells:
            for table, method in own.items():
                assert table not in c.source or c.verified is (c.method == method), c
            if re.search("as (quoted|printed) in", c.protocol) and "CV-DD under FADRM" not in c.protocol:
                assert not c.verified, c
    page = pages_of_published(load_published(FOLDER))
    assert re.search(r"wmdd +\| 10 +\| 38\.2 ± 0\.2† ", page)
    assert re.search(r"gcond +\| 5 +\| 79\.8 ± 1\.3† ", page) and re.search(r"ctrl +\| 5 +\| 81\.9 ", page)


def test_numbers_of_sets_with_unequal_classes_have_the_number_of_nodes():
    sets = {(s.dataset, s.model): s for s in load_published(FOLDER)}
    nodes = {
        ("ogbn_arxiv", "node_gcn"): {90, 454, 909}, ("flickr_inductive", "node_gcn"): {44, 223},
        ("reddit_inductive", "node_gat"): {153},
    }  # fmt: skip
    assert {key: {c.nodes for c in sets[key].cells if c.ipc} for key in nodes} == nodes
    arxiv = sets["ogbn_arxiv", "node_gcn"]
    found = [c for c in arxiv.at("gcond", 90) if c.budget == "90 nodes in total"]
    assert [(c.mean, c.std, c.verified) for c in found] == [(59.2, 1.1, False), (57.0, None, True)]
    assert [(c.mean, c.verified) for c in sets["flickr_inductive", "node_gcn"].at("ctrl", 223)] == [
        (47.4, True)
    ]
    with pytest.raises(ValueError, match="ipc must be 90, the number of nodes, got 5"):
        Published(**CELL | {"ipc": 5, "nodes": 90})


def test_some_published_numbers():
    sets = {(s.dataset, s.model.partition("_bn")[0]): s for s in load_published(FOLDER)}

    def value(dataset, method, ipc, model="convnet"):
        first = sets[dataset, model].at(method, ipc)[0]
        return first.mean, first.std, first.verified

    assert value("fashion_mnist", "dc", 10) == (82.3, 0.4, True)
    assert value("fashion_mnist", "random", 10) == (73.8, 0.7, False)
    assert value("svhn", "dsa", 50) == (84.4, 0.4, True)
    assert value("tiny_imagenet", "ncfm", 1) == (18.2, 0.5, True)
    assert value("cifar10", "ftd", 1) == (46.8, 0.3, True)  # the number of the paper itself comes first
    assert value("imagenet1k", "cda", 50, "unstated") == (63.2, None, True)
    assert value("imagenet21k", "cda", 20, "timm(name=resnet101, options.zero_init_last=False)")[0] == 36.1
    assert value("cifar100", "datm", 50) == (55.0, 0.2, False)
    assert value("imagesquawk", "mtt", 10) == (52.3, 1.0, False)
    assert value("cifar10", "full", 50) == (84.8, 0.1, False)  # the same for every IPC
    assert value("cifar100", "infer", 10, "resnet18") == (45.2, None, True)
    assert value("cifar100", "edc", 10, "resnet18") == (63.7, None, False)
    assert value("cifar10", "edc", 10, "resnet18") == (79.1, None, False)
    assert value("imagewoof_224", "minimax", 10, "resnetap10") == (39.2, 1.3, True)
    assert value("imagenet100", "mgd3", 20, "resnet18_idc") == (32.6, 0.4, True)
    assert value("imageidc", "vlcp", 50, "resnetap10") == (71.9, 0.4, True)
    assert value("tiny_imagenet", "nrr_dd", 50, "resnet18") == (61.2, 0.1, False)
    by_name = {s.model: s for s in sets.values() if s.dataset == "imagenet1k"}
    large = {
        depth: next(s for name, s in by_name.items() if f"resnet{depth}," in name) for depth in (18, 101)
    }
    assert large[18].at("sre2l", 50)[0].mean == 46.8
    assert large[101].at("cda", 200)[0].mean == 68.4
    assert sets["fashion_mnist", "convnet"].at("datadam", 1) == []  # no number is known


def test_two_protocols_of_one_method_are_both_published():
    """CV-DD's group prints 10.1 in one paper and 30.6 in the next for the same method, set and network."""
    (tiny,) = (s for s in load_published(FOLDER) if (s.dataset, s.model) == ("tiny_imagenet", "resnet18_bn"))
    own, later = tiny.at("cv_dd", 1)
    assert (own.mean, later.mean) == (10.1, 30.6) and "FADRM's evaluation" in later.protocol != own.protocol


def test_every_published_method_has_a_family():
    for s in load_published(FOLDER):
        for c in s.cells:
            assert links_of(c.method).family != "other", c.method


CELL = {"method": "dc", "ipc": 1, "mean": 70.5, "std": 0.6, "protocol": "p", "source": "s", "verified": True}


@pytest.mark.parametrize(
    "cell",
    [
        {"mean": 170.5},
        {"ipc": 0},
        {"source": ""},
        {"protocol": ""},
        {"verified": None},
        {"std": -1},
        {"note": "unknown field"},
    ],
)
def test_invalid_cells_are_rejected(tmp_path, cell):
    text = json.dumps({"dataset": "x", "model": "convnet", "unit": "percent", "cells": [CELL | cell]})
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json"):
        load_published(tmp_path)


def test_all_fields_are_required():
    fields = {
        k: v for k, v in Published.model_fields.items() if k not in ("bits_of_ipc", "ipc_stated", "nodes")
    }
    assert all(field.is_required() for field in fields.values())


def test_files_and_numbers_are_unique(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_published(tmp_path / "none")
    head = {"model": "convnet", "unit": "percent"}
    for name in ("cifar10", "CIFAR-10"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**head, "dataset": name, "cells": [CELL]}))
    with pytest.raises(ValueError, match="several files"):
        load_published(tmp_path)
    (tmp_path / "CIFAR-10.json").write_text(json.dumps({**head, "dataset": "svhn", "cells": [CELL, CELL]}))
    with pytest.raises(ValueError, match="got two for"):
        load_published(tmp_path)
