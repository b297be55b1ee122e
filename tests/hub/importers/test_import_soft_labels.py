"""Released soft labels: a softmax of probabilities would flatten them without an error."""

import pytest
import torch

from dd_bench.hub.importers.soft_labels import labels_of

LOGITS = torch.tensor([[3.0, -1.0, 0.0], [0.5, 2.0, -4.0]], dtype=torch.float64)


def test_logits_are_converted():
    labels = labels_of(LOGITS, logits=True)
    assert labels.dtype == torch.float32 and torch.allclose(labels, LOGITS.softmax(1).float())


@pytest.mark.parametrize(
    "labels", [LOGITS.softmax(1), LOGITS.softmax(1).half(), torch.eye(3), torch.eye(3).long()]
)
def test_probabilities_are_never_passed_through_a_softmax(labels):
    assert torch.equal(labels_of(labels, logits=False), labels.float())
    with pytest.raises(ValueError, match="the soft labels are probabilities"):
        labels_of(labels, logits=True)


def test_logits_are_detected_without_the_flag():
    with pytest.raises(ValueError, match=r"logits or regression targets: values -4..3, .* add --logits"):
        labels_of(LOGITS, logits=False)
    with pytest.raises(ValueError, match=r"not normalised: values 1..2"):
        labels_of(torch.tensor([[1.0, 2.0]]), logits=False)


def test_log_probabilities_are_logits():
    probabilities = LOGITS.softmax(1)
    assert torch.allclose(labels_of(probabilities.log(), logits=True), probabilities.float())


def test_hard_labels():
    assert labels_of(torch.tensor([1.0, 0.0]), logits=False).tolist() == [1, 0]
    assert labels_of(torch.tensor([1, 0], dtype=torch.int8), logits=False).dtype == torch.int64
    with pytest.raises(ValueError, match="must be integers"):
        labels_of(torch.tensor([0.5, 1]), logits=False)
    with pytest.raises(ValueError, match="Leave out --logits"):
        labels_of(torch.tensor([1, 0]), logits=True)


def test_values_that_are_not_finite_are_rejected():
    with pytest.raises(ValueError, match="must be finite"):
        labels_of(torch.tensor([[torch.nan, 1.0]]), logits=False)
