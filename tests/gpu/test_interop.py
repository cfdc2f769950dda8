"""normcore.interop.torch on a GPU: on PyTorch's current stream, against the same module on the CPU."""

import pytest

import normcore

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this build of torch finds no GPU"),
]
CASES = {
    "batch_norm": ((32, 24, 14, 14), {}),
    "gelu": ((64, 500), {}),
    "max_pool": ((8, 16, 27, 27), {"kernel_size": 3, "stride": 2}),
    "dense": ((64, 100), {"out_features": 30}),
}


@pytest.mark.parametrize("own_stream", [False, True], ids=["default stream", "a stream of PyTorch's"])
@pytest.mark.parametrize("name", CASES)
def test_like_the_cpu(name, own_stream):
    shape, parameters = CASES[name]
    module = normcore.interop.torch.Module(name, input_shape=shape, seed=1, **parameters)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = module(x)
    y.square().sum().backward()
    expected = [y.detach(), x.grad, *(p.grad for p in module.parameters())]
    module.zero_grad()
    module = module.cuda()
    with torch.cuda.stream(torch.cuda.Stream() if own_stream else torch.cuda.default_stream()):
        for _ in range(3):  # a missing wait shows in results that change
            module.zero_grad()
            there = x.detach().cuda().requires_grad_()
            y = module(there)
            y.square().sum().backward()
            found = [y.detach(), there.grad, *(p.grad for p in module.parameters())]
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
