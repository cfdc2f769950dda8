"""What an author gets wrong in a declaration is named in a sentence, when the plugin is loaded."""

import pytest

from normcore.errors import PluginError
from normcore.registry import Registry

OP = """
import normcore

@normcore.elementwise
class {name}:
    '''alpha x'''
{body}

@normcore.hookimpl
def normcore_ops():
    return {returned}
"""
TIMES_ALPHA = "    def forward(x, alpha): return alpha * x"


def load(folder, body, name="scaled", returned="[scaled]"):
    file = folder / "mistake.py"
    file.write_text(OP.format(name=name, body=body, returned=returned), encoding="utf-8")
    return Registry().load_file(file)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"    alpha: float = 'two'\n{TIMES_ALPHA}", "alpha must default to a number, got 'two'"),
        (f"    alpha = 2.0\n{TIMES_ALPHA}", "needs a type to be a field: alpha: float = 2.0"),
        ("    alpha: float = 2.0\n    def forward(x, alhpa): return alhpa * x", "did you mean 'alpha'"),
        ("    alpha: float = 2.0\n    def forward(self, x): return self.alpha * x", "forward takes no self"),
        (
            f"    alpha: float = 2.0\n{TIMES_ALPHA}\n    def derivatve(x, y, alpha): return alpha",
            "did you mean 'derivative'",
        ),
        ("    def backward(x): return x", "needs a function forward"),
    ],
)
def test_a_mistake_in_the_class_is_named(body, said, tmp_path):
    with pytest.raises(PluginError, match=said):
        load(tmp_path, body)


def test_a_hook_that_returns_no_list(tmp_path):
    with pytest.raises(
        PluginError, match=r"normcore_ops\(\) returned scaled; expected a list: return \[scaled\]"
    ):
        load(tmp_path, "    def forward(x): return 2.0 * x", returned="scaled")


def test_a_name_in_capitals_gets_a_proposal(tmp_path):
    with pytest.raises(PluginError, match="a name is lower_snake_case, such as 'my_scaled'"):
        load(tmp_path, "    def forward(x): return 2.0 * x", name="MyScaled", returned="[MyScaled]")
