# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Classify the digits' test images with an exported student in stock mmpretrain.

Nothing of mmfakd is imported: the student file alone says what model it is.
"""

import argparse
import sys

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from sklearn.datasets import load_digits


def main() -> None:
    """Load strictly, classify, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='file of an exported student')
    parser.add_argument('--images', type=int, default=8, help='images to classify')
    args = parser.parse_args()

    checkpoint = torch.load(args.checkpoint, map_location='cpu', weights_only=True)
    config = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    model = get_model(config, pretrained=args.checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    classify = ImageClassificationInferencer(model)

    digits = load_digits()
    # The images that `mmfakd.Digits` keeps for testing.
    rng = np.random.RandomState(0)
    classes = [np.flatnonzero(digits.target == digit) for digit in range(10)]
    held_out = np.sort(np.concatenate([rng.permutation(c)[:50] for c in classes]))
    shown = held_out[:: max(1, len(held_out) // args.images)]
    images = [np.round(digits.images[i] * (255 / 16)).astype(np.uint8) for i in shown]
    results = classify([image[..., None] for image in images])
    for index, result in zip(shown, results):
        print(
            f'image {index}: a {digits.target[index]}, classified as '
            f'{result["pred_class"]} with score {result["pred_score"]:.2f}'
        )
    right = sum(r['pred_label'] == digits.target[i] for i, r in zip(shown, results))
    print(f'{right} of {len(shown)} right; loaded with strict=True.')
    if any(name.split('.')[0] == 'mmfakd' for name in sys.modules):
        sys.exit('mmfakd was imported: this does not show that the file is stock.')


if __name__ == '__main__':
    main()
