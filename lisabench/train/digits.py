"""Handwritten digits, 8 x 8, real images that scikit-learn brings."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lisabench.train.data import Part, Split

HEIGHT = WIDTH = 8
CLASSES = 10
SPLIT_SEED = 0
TEST_SHARE = 0.25


def read() -> Split:
    """The 1,797 digits, stratified into 1,347 and 450; brightness standardised by the training part.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998, its test part.
    """
    found = load_digits()
    images, labels = torch.from_numpy(found.images).float().unsqueeze(1), torch.from_numpy(found.target).long()
    places = train_test_split(range(len(labels)), test_size=TEST_SHARE, stratify=found.target, random_state=SPLIT_SEED)
    train, test = (Part(images=images[chosen], labels=labels[chosen]) for chosen in places)
    deviation, mean = torch.std_mean(train.images, correction=0)
    return Split(
        train=Part(images=(train.images - mean) / deviation, labels=train.labels),
        test=Part(images=(test.images - mean) / deviation, labels=test.labels),
    )
