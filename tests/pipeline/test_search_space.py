"""Overrides in Hydra's sweep grammar as distributions of Optuna."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dd_bench.pipeline.search_space import search_space


@pytest.mark.parametrize(
    ("values", "distribution", "size"),
    [
        ("0.01,0.1,1,10", CategoricalDistribution((0.01, 0.1, 1, 10)), 4),
        ("true,null,a b", CategoricalDistribution((True, "null", "a b")), 3),
        ("[1,2],[3]", CategoricalDistribution(("[1,2]", "[3]")), 2),
        ("'a,b',c", CategoricalDistribution(("'a,b'", "c")), 2),
        ("1,true", CategoricalDistribution(("1", "true")), 2),
        ("0.1,0.1,1", CategoricalDistribution((0.1, 1)), 2),
        ("shuffle(3,2,1)", CategoricalDistribution((3, 2, 1)), 3),
        ("range(10,60,20)", IntDistribution(10, 50, step=20), 3),
        ("range(3)", IntDistribution(0, 2), 3),
        ("range(5,1,-2)", IntDistribution(3, 5, step=2), 2),
        ("range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5), 3),
        ("interval(0.1,10)", FloatDistribution(0.1, 10), None),
        ("tag(log,interval(0.1,10))", FloatDistribution(0.1, 10, log=True), None),
        ("int(interval(1,4))", IntDistribution(1, 4), 4),
        ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True), 100),
        ("tag(log,range(1,5))", IntDistribution(1, 4, log=True), 4),
    ],
)
def test_values(values, distribution, size):
    space = search_space(["method=dm", f"method.x={values}", "ipc=1"])
    assert space.distributions == {"method.x": distribution} and space.texts == {"method.x": values}
    assert space.size == size and space.fixed == ("method=dm", "ipc=1")


def test_groups_and_added_keys():
    space = search_space(
        ["method=glob(mirage*)", "+method.x=1,2", "model@teachers.a.model=mlp,convnet", "~set"]
    )
    assert space.grid() == {
        "method": ("mirage", "mirage_released"), "+method.x": (1, 2), "model@teachers.a.model": ("mlp", "convnet")
    }  # fmt: skip
    assert space.size == 8 and space.fixed == ("~set",)


def test_every_value_of_a_choice_is_an_example():
    space = search_space(["method.a=1,2,3", "method.b=interval(0,1)", "method.c=x,y"])
    first = {"method.a": 1, "method.b": 0.0, "method.c": "x"}
    assert space.examples() == [
        first,
        first | {"method.a": 2},
        first | {"method.a": 3},
        first | {"method.c": "y"},
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=dm"],
            "no override has several values, so there is nothing to search. Example: dd-bench tune",
        ),
        (
            ["ipc=1,10"],
            "ipc=1,10: ipc cannot be searched, because scores with other values of ipc cannot be compared",
        ),
        (["dataset.val_fraction=0.1,0.2"], r"dataset\.val_fraction cannot be searched"),
        (["method.a=1,2", "method.a=3"], r"method\.a must be given once, got it twice"),
        (["method.a=tag(log,choice(1,2))"], "tag log is not supported here"),
        (["method.a=tag(normal,interval(0,1))"], "tag normal is not supported here"),
        (
            ["method.a=tag(log,interval(0,1))"],
            r"method\.a=tag\(log,interval\(0,1\)\): .*Examples: method\.lr_img",
        ),
        (["method.a=tag(log,range(1,9,2))"], "requires integers with step 1"),
        (["method.a=range(3,3)"], "there are no values. Examples"),
        (["method.a=interval(2,1)"], "Examples: method"),
        (["method.a=1,(2"], "cannot be parsed"),
    ],
)
def test_errors(overrides, message):
    with pytest.raises(ValueError, match=message):
        search_space(overrides)
