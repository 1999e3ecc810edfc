# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Batches whose images do not fit together name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from mmfakd.models.algorithms.check_batches import image_name


class NamingCollate:
    """Make batches as before, and name images whose sizes differ.

    A class, as loaders that spawn their workers pickle it.

    Args:
        collate (Callable): The loader's function, which makes a batch of items.
    """

    def __init__(self, collate: Callable[[Sequence], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence) -> Any:
        """Make a batch.

        Args:
            items (Sequence): What the pipeline makes of each image.

        Returns:
            Any: The batch.

        Raises:
            ValueError: If the images do not fit into one batch.
            RuntimeError: What the loader's function says of items of another form.
        """
        try:
            return self.collate(items)
        except RuntimeError as error:
            if 'equal size' not in str(error) or not all(map(_has_image, items)):
                raise
            shapes = {
                tuple(item['inputs'].shape): image_name(item.get('data_samples'))
                for item in items
            }
            if len(shapes) == 1:
                # It is something else that does not fit.
                raise
            sizes = ', '.join(f'{name}: {shape}' for shape, name in shapes.items())
            raise ValueError(
                f'The images of a batch have different shapes ({sizes}). Expected one: '
                'end the pipeline in a crop or resize to one size, or collate with '
                "dict(type='pseudo_collate') where the data_preprocessor pads."
            ) from error


def _has_image(item: Any) -> bool:
    """Whether an item is as OpenMMLab packs one image."""
    return isinstance(item, dict) and isinstance(item.get('inputs'), Tensor)
