"""Your own activation in five lines: gradients, a module, facts, compiled."""

import torch

import softknee


@softknee.elementwise(source="this example")
def softer(x, ops, *, beta=1.0):
    """x times the average of a sigmoid and a step as soft as beta."""
    return x * (ops.sigmoid(x) + ops.sigmoid(beta * x)) / 2


x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
print("gradients right:", torch.autograd.gradcheck(softer, (x,)), torch.autograd.gradgradcheck(softer, (x,)))
print("exact gain:", round(softer.facts.gain, 6), "  lowest point:", softer.facts.minimum)

model = torch.nn.Sequential(torch.nn.Linear(8, 16), softer.module(beta=2.0), torch.nn.Linear(16, 1))
print(model)
print("identified:", softknee.identify(model, torch.randn(4, 8)).sites[0].implementation)
