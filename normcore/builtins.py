"""The core's own components, registered through the same entry-point group as any plugin's."""

from collections.abc import Sequence
from typing import Any

from normcore.hookspecs import hookimpl


@hookimpl
def normcore_initializers() -> Sequence[Any]:
    from normcore.initializers import BUILT_IN

    return BUILT_IN
