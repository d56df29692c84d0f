"""A training loop in plain PyTorch, on handwritten digits; the rate of its torch.nn.Dropout is that of the variant.

Run: keras-dropout compare examples/trainings/torch_loop.py:train --variant half="hidden=0.5" --variant built=as-built

It stores a checkpoint after each epoch: if the command is interrupted, or killed, the same command goes on from there.
"""

import io

import torch
from sklearn.datasets import load_digits
from torch import nn


def train(run):
    """Train a small network on 1,000 digits; return loss and accuracy on the others, and the loss of each."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    x, y, x_test, y_test = x[:1000], y[:1000], x[1000:], y[1000:]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(run.rate("hidden", 0.2)), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    first, epochs = 0, run.epochs or 20
    if saved := run.resume():
        first, (weights, moments) = saved.epoch, torch.load(io.BytesIO(saved.state))
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    for epoch in range(first + 1, epochs + 1):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        run.log({"loss": total / len(x)}, epoch)
        state = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), state)
        run.checkpoint(state.getvalue(), epoch)
    model.eval()
    with torch.no_grad():
        answers = model(x_test)
    losses = nn.functional.cross_entropy(answers, y_test, reduction="none")
    return {"test_loss": losses.mean(), "test_accuracy": (answers.argmax(1) == y_test).float().mean()}, losses
