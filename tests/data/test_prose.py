from asi_lab.data.prose import is_prose, paragraphs

DOCSTRING = """Compute the mean of :class:`~numpy.ndarray` values, see `the guide
<https://example.org>`_ and ``numpy.mean`` [1]_ for more.

Parameters
----------
axis : int, optional
    The axis over which
    the mean is taken.

.. note:: Not a number is contagious in this function.

.. code-block:: python

    this is code which must not stay in the text

It is used like this::

    call(the, function) and look at the result of it

>>> mean([1, 2, 3])
this output must not stay either

The end comes after all of the examples.
"""


def test_code_and_markup_go_and_wrapped_lines_are_joined():
    assert paragraphs(DOCSTRING) == [
        "Compute the mean of ndarray values, see the guide and numpy.mean for more.",
        "axis : int, optional",
        "The axis over which the mean is taken.",
        "Not a number is contagious in this function.",
        "It is used like this:",
        "The end comes after all of the examples.",
    ]


def test_items_keep_their_lines_and_their_continuations():
    text = "Args:\n    first (int): The first of\n        the two.\n    second: Another one, in words.\n"
    assert paragraphs(text) == [
        "first (int): The first of the two.",
        "second: Another one, in words.",
    ]
    assert paragraphs("* one point that goes\n  on here\n* a second point made") == [
        "* one point that goes on here",
        "* a second point made",
    ]


def test_fenced_code_is_left_out():
    assert paragraphs(
        "Before there is some text.\n```python\nimport this and that too\n```\nAfter it is more text."
    ) == [
        "Before there is some text.",
        "After it is more text.",
    ]


def test_what_prose_is():
    assert is_prose("This is a sentence of several words.")
    assert not is_prose("too few words")
    assert not is_prose("x = [1, 2, 3] + f(y)[0] ** 2")
    assert not is_prose("αβγ δεζ ηθι κλμ νξο")
    assert not is_prose(r"the sum \frac{a}{b} of all parts is \sqrt{c} here and there")
