"""Trains a small PyTorch network on digits and evaluates it, class by class. It needs nothing but the extra `torch`."""

import torch

import ltrobust as lt

train, _, test = lt.data.load("digits", imbalance_ratio=0)
module = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 10))
pixels, labels = torch.from_numpy(train.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(train.labels)
optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(module(pixels), labels).backward()
    optimizer.step()

print(lt.evaluate(module, test.images, test.labels, protocol="quick", threat=lt.Threat("linf", 16)).summary())
