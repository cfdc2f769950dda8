"""The conformance suite on every op of the registry: an op added later is covered without a line here."""

import pytest

import normcore.testing
from normcore.devices import device as devices
from normcore.errors import DeviceError
from normcore.testing.parametrize import ConformanceError


@normcore.testing.parametrize_checks()
def test_op(check):
    check()


@pytest.mark.gpu
def test_ops_on_the_gpu():
    """The same checks on real hardware, all ops in one case: elsewhere it is one skip with its reason."""
    try:
        devices.get("cuda")
    except DeviceError as missing:
        pytest.skip(str(missing))
    faults = []
    for registered in normcore.ops():
        report = normcore.testing.check_op(registered.name, device="cuda")
        faults += map(str, report.failed)
    if faults:
        raise ConformanceError("\n".join(faults))
