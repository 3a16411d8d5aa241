"""When two pieces of code count as the same."""

from asi_lab.common.syntax import code_hash

CODE = '''
"""Module."""
import torch

class DeltaNet:
    """Doc."""

    def forward(self, x, scale=2.0):
        """Doc."""
        gate = torch.sigmoid(x)
        y = gate * x
        return y
'''


def test_comments_docstrings_layout_and_local_names_do_not_count():
    other = CODE.replace('"""Doc."""', '"""Something else."""').replace("gate", "g").replace("y =", "out  =")
    other = other.replace("return y", "return out  # result")
    assert code_hash(other) == code_hash(CODE)


def test_what_the_code_does_counts():
    assert code_hash(CODE.replace("2.0", "3.0")) != code_hash(CODE)
    assert code_hash(CODE.replace("gate * x", "gate + x")) != code_hash(CODE)
    assert code_hash(CODE.replace("sigmoid", "tanh")) != code_hash(CODE)
    assert code_hash(CODE.replace("(self, x, scale", "(self, x, factor")) != code_hash(CODE)


def test_code_that_does_not_parse_is_compared_as_text():
    assert code_hash("def (") == code_hash("def (")
    assert code_hash("def (") != code_hash("def )")
    assert code_hash("x = '\udcff'")  # lone surrogates too
