"""How a loss says that it cannot compare what it got."""


class InputError(ValueError):
    """The features, or an argument, are not what a loss can compute with.

    A class of its own, so that any other ``ValueError`` in a loss keeps its traceback.
    """


def check_temperature(value: float, loss: str, name: str = 'temperature') -> None:
    """Check that a temperature is above 0.

    Args:
        value: the temperature.
        loss: name of the loss that asks.
        name: of the loss's argument.

    Raises:
        InputError: it is not.
    """
    if not value > 0:
        raise InputError(f'{loss} needs a {name} above 0, not {value!r}')
