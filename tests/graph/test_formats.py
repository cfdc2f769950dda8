"""The planner's memory formats: those of the device's kernels, conversions only where neighbours differ."""

from normcore import Network
from normcore.graph.formats import Convert, choose
from normcore.graph.fuse import fuse


def planned(layers, device):
    net = Network.from_mapping({"input": [3, 6, 6], "network": layers, "loss": "mse"})
    nodes = choose(fuse(net._graph(2), True), device).nodes
    return [n.format for n in nodes if not isinstance(n.op, Convert)], len(nodes)


def test_no_conversion_where_the_device_takes_both():
    pools = [{"avg_pool": {"kernel_size": 2}}, {"avg_pool": {"kernel_size": 3}}]
    assert planned(pools, "cuda") == (["channels_first"] * 2, 2)
    formats, count = planned(pools, "cpu")
    assert formats == ["channels_last"] * 2 and count > 2
