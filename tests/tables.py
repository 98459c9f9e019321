"""What tests of tables share: columns of text, and the way to a tensor and back."""

import numpy as np
import torch

NUM = 40  # rows
RANGE = np.arange(NUM)
_GENERATOR = np.random.default_rng(0)
NUMBERS, B, C = ([f"{value:.4f}" for value in _GENERATOR.normal(size=NUM)] for _ in range(3))


def table(*columns, names=None, separator=","):
    """The text of a table with these columns."""
    lines = [separator.join(cells) for cells in zip(*columns, strict=True)]
    return "\n".join([separator.join(names), *lines] if names else lines) + "\n"


def kinds(schema):
    return {column.name: column.kind for column in schema.columns}


def texts(*cells, num=NUM):
    """As many cells, these over and over again."""
    return [cells[i % len(cells)] for i in range(num)]


def there_and_back(frame, schema, dtype=torch.float32):
    back = schema.decode(schema.encode(frame, dtype=dtype))
    return frame[list(back.columns)], back
