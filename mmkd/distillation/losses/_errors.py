"""How a loss says that it cannot compare what it got."""


class InputError(ValueError):
    """The features, or an argument, are not what a loss can compute with.

    A class of its own, so that any other ``ValueError`` in a loss keeps its traceback.
    """
