"""Watch a training run, and ask whether the activations are the reason that it does not learn."""

import torch
from torch import nn

import softknee

torch.manual_seed(0)
x = torch.randn(512, 20)
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(20, 20), nn.Sigmoid())], nn.Linear(20, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

with softknee.watch(model, optimizer, every=5) as w:
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        w.log(loss=loss)

report = w.report()
print(report)
print(report.plan())
