"""Configured values are checked against type hints before anything is built."""

import pytest

from dd_bench.methods.datadam import DataDAM
from dd_bench.pipeline.arguments import check_arguments
from dd_bench.runtime.loggers import MultiLogger


def reader(*, root: str | None, size: int, device: object) -> None: ...


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_img": "abc"}, r"method.lr_img='abc': .*valid number"),
        ({"iterations": 1.5}, r"method.iterations=1.5: .*integer"),
        ({"power": None}, r"method.power=None"),  # a parameter of DataDAM
        ({"norm": 3}, r"method.norm=3: .*string"),  # a parameter of its base class DM
    ],
)
def test_wrong_type_is_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        check_arguments(DataDAM, values, "method")


def test_unknown_key_is_rejected_with_similar_keys():
    with pytest.raises(ValueError, match=r"method\.iteratoins is not .* Did you mean method\.iterations\?"):
        check_arguments(DataDAM, {"iteratoins": 5}, "method")


def test_valid_values_pass():
    check_arguments(DataDAM, {"lr_img": 1, "norm": None, "power": 4.0}, "method")
    check_arguments(reader, {"root": None, "size": 32}, "dataset")
    check_arguments(MultiLogger, {"loggers": [{"_target_": "a.Logger"}]}, "logger")  # still a configuration
