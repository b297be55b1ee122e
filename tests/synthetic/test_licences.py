"""Licences of the real datasets, as identifiers of the Hugging Face Hub."""

import pytest

from dd_bench.synthetic.licences import hub_licence, licence_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT, copyright 2017 Zalando SE", "mit"),
        ("MIT (Open Graph Benchmark)", "mit"),
        ("MIT License", "mit"),
        ("Apache-2.0", "apache-2.0"),
        ("CC BY 4.0 (UCI Machine Learning Repository); copied from scikit-learn", "cc-by-4.0"),
        ("CC BY-SA 3.0, copyright Yann LeCun and Corinna Cortes", "cc-by-sa-3.0"),
        ("none stated by TUDataset", "unknown"),
        ("none stated; the publisher asks for the citation", "unknown"),
        ("unknown", "unknown"),
    ],
)
def test_known_licences(text, expected):
    assert hub_licence(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "for non-commercial use only",
        "none of its own; ImageNet's terms: non-commercial research and education only",
        "MIT, for research only",
        "MIT, copyright 2017 Zalando SE; CC BY 4.0",  # two licences
        "CC BY 9.0",
        "generated",
        "",
    ],
)
def test_conditions_that_are_not_understood(text):
    """They must not be published under a licence that permits more."""
    assert hub_licence(text) == "other"


def test_name_of_another_licence():
    assert licence_name("For non-commercial use only.") == "for-non-commercial-use-only"
    assert licence_name("—") == "see-the-text"
