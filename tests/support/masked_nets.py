"""Networks trained in seconds, plain and adversarially, and the ways in which gradients are masked."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class SmallCnn(nn.Module):
    """Two convolutions with stride and a dense layer, for 28 x 28 digits."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2, padding=2)
        self.fc1 = nn.Linear(16 * 7 * 7, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class Then(nn.Module):
    """A network, and a function of its logits."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function(self.net(x))


class First(nn.Module):
    """A function of the pixels, and a network."""

    def __init__(self, function, net):
        super().__init__()
        self.function, self.net = function, net

    def forward(self, x):
        return self.net(self.function(x))


class TorchJudge:
    """A torch module that judges pixel codes: labels, and logits where asked for."""

    def __init__(self, module):
        self.module = module

    def logits(self, images):
        with torch.no_grad():
            return self.module(torch.from_numpy(np.ascontiguousarray(images)).float() / 255).numpy()

    def predict(self, images):
        return self.logits(images).argmax(axis=1)


def _attacked(net, x, y, radius, steps):
    start = (x + torch.empty_like(x).uniform_(-radius, radius)).clamp(0, 1)
    moved = start
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(net(moved), y), moved)
        moved = moved + 1.5 * radius / steps * gradient.sign()
        moved = torch.min(torch.max(moved, x - radius), x + radius).clamp(0, 1)
    return moved.detach()


def trained(images, labels, radius=0.0, epochs=4, seed=0):
    """A small network trained on images, each attacked within `radius` of [0, 1] by two steps of PGD."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallCnn()
        x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
        batch = 100
        steps = epochs * (len(x) // batch)
        optimiser = torch.optim.Adam(net.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(batch):
                seen = _attacked(net, x[index], y[index], radius, 2) if radius else x[index]
                optimiser.zero_grad()
                functional.cross_entropy(net(seen), y[index]).backward()
                optimiser.step()
                schedule.step()
    return net.eval()


class Random(nn.Module):
    """A network that adds noise to its pixels, drawn anew for each inference."""

    def __init__(self, net, strength=0.1):
        super().__init__()
        self.net, self.strength = net, strength

    def forward(self, x):
        return self.net(x + self.strength * torch.randn_like(x))


class Labels:
    """A judge that tells labels alone."""

    def __init__(self, judge):
        self.predict = judge.predict
