import pytest
import torch

from dd_bench.models.network import batch_coupled, num_parameters
from dd_bench.models.vit import EncoderBlock, ViT

PAPER = {
    "patch": 4,
    "dim": 512,
    "depth": 6,
    "heads": 8,
    "mlp_dim": 512,
    "dropout": 0.1,
    "emb_dropout": 0.1,
}
SMALL = {**PAPER, "dim": 16, "depth": 2, "heads": 4, "mlp_dim": 8}


def test_number_of_parameters_is_that_of_the_paper():
    with torch.device("meta"):
        net = ViT((3, 32, 32), 10, **PAPER)
    block = 512 * 3 * 512 + 512 * 513 + 2 * 512 * 513 + 2 * 2 * 512
    assert num_parameters(net) == (48 + 1) * 512 + (1 + 65) * 512 + 6 * block + 2 * 512 + 5130
    assert not batch_coupled(net)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 64)])
def test_the_embedding_is_the_class_token(shape):
    net = ViT(shape, 10, **SMALL).eval()
    x = torch.randn(3, *shape)
    maps, embedding = net.activations(x)
    assert maps == []
    assert embedding.shape == (3, 16)
    torch.testing.assert_close(net.classifier(net.embed(x)), net(x))


def test_attention_equals_multihead_attention():
    block = EncoderBlock(dim=16, heads=4, mlp_dim=8, dropout=0.0)
    theirs = torch.nn.MultiheadAttention(16, 4, bias=True, batch_first=True)
    theirs.in_proj_weight.data = block.qkv.weight.data
    theirs.in_proj_bias.data.zero_()
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = block.project[0].weight, block.project[0].bias
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block.attend(x), theirs(x, x, x)[0])


def test_the_order_of_patches_matters():
    net = ViT((1, 8, 8), 3, **SMALL).eval()
    x = torch.randn(2, 1, 8, 8)
    assert not torch.allclose(net(x), net(x.roll(4, dims=-1)))
    torch.nn.init.zeros_(net.positions)
    torch.testing.assert_close(net(x), net(x.roll(4, dims=-1)))


def test_invalid_arguments():
    with pytest.raises(ValueError, match=r"model.patch must divide the image size 30x28, got 4"):
        ViT((1, 30, 28), 10, **SMALL)
    with pytest.raises(ValueError, match=r"model.heads must divide model.dim=16, got 3"):
        ViT((1, 28, 28), 10, **{**SMALL, "heads": 3})
