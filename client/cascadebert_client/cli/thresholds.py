"""Thresholds on the command line."""


def threshold_from_text(text: str) -> float | tuple[float, ...]:
    """Return one number, or a tuple of numbers that are separated by commas, for argparse.

    Raises:
        ValueError: A part is not a number.
    """
    values = tuple(float(part) for part in text.split(","))
    return values[0] if len(values) == 1 else values


# argparse names it in its message: "invalid number or numbers value".
threshold_from_text.__name__ = "number or numbers"
