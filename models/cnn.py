"""The four-layer MNIST network of Madry et al., which the paper uses as its MNIST model."""

import torch
from torch import Tensor, nn

# Standard deviation and bounds of the truncated normal, and the bias, in the published MNIST challenge.
_MADRY_STD = 0.1
_MADRY_BIAS = 0.1


class MnistCnn(nn.Module):
    """Convolution, pool, convolution, pool, two dense layers, in the shape of Madry's MNIST challenge.

    conv1 5x5x32 SAME, ReLU, max pool 2 - conv2 5x5x64 SAME, ReLU, max pool 2 - flatten (3136) -
    fc1 1024, ReLU - fc2 10. 3,274,634 parameters.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to
    Adversarial Attacks" (2018), Section 5 and the MNIST challenge that goes with it.

    Args:
        madry_init: Initialise as the challenge does (truncated normal of standard deviation 0.1, biases
            0.1) and not as PyTorch does by default.
    """

    def __init__(self, *, madry_init: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 1024)
        self.fc2 = nn.Linear(1024, 10)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        if madry_init:
            _initialise_like_madry(self)

    def forward(self, images: Tensor) -> Tensor:
        """Classify digits.

        Args:
            images: (N, 1, 28, 28) float32 pixels in [0, 1].

        Returns:
            (N, 10) float32 logits.
        """
        x = self.pool(self.relu(self.conv1(images)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc2(x)
        return logits


def _initialise_like_madry(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=_MADRY_STD, a=-2 * _MADRY_STD, b=2 * _MADRY_STD)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, _MADRY_BIAS)
