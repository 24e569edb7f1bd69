"""A folder of small checkpoints under the names of the paper's models, and images that one of them classifies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ohmfold.models.checkpoints import save_weights
from ohmfold.models.registry import build_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

ARCHITECTURE = "mnist-vgg"
SHAPE = (1, 28, 28)


def small_model(seed: int = 1, architecture: str = ARCHITECTURE) -> nn.Module:
    """An untrained network whose batch norms know images like `some_images`, so that it tells several classes."""
    network = build_model(architecture, seed=seed)
    with torch.no_grad():
        for _ in range(40):
            network.train()(torch.from_numpy(some_images(64, seed=99)).float() / 255)
    return network.eval()


def some_images(count: int, seed: int = 2) -> NDArray[np.uint8]:
    """Bright rectangles on dark noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, *SHAPE))
    for image in images:
        top, left = rng.integers(0, 16, 2)
        height, width = rng.integers(4, 12, 2)
        image[0, top : top + height, left : left + width] += 180
    return images.astype(np.uint8)


def write_zoo(folder: Path, *suffixes: str) -> Path:
    """Write checkpoints of several seeds: "" is the original model, "-adv" the adversarially trained one."""
    folder.mkdir(exist_ok=True)
    for seed, suffix in enumerate(suffixes, start=1):
        save_weights(
            small_model(seed),
            folder / f"mnist-cnn{suffix}.safetensors",
            half=False,
            architecture=ARCHITECTURE,
        )
    return folder


def write_judged(path: Path, count: int, wrong: int = 3) -> Path:
    """Write images with the classes that the original model gives them, but for the first few."""
    images = some_images(count)
    with torch.no_grad():
        labels = small_model(1)(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    labels[:wrong] = (labels[:wrong] + 1) % 10
    np.savez(path, images=images, labels=labels)
    return path
