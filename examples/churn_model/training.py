"""The arithmetic: logistic regression by gradient descent, in NumPy. Knows nothing of FlowStone."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

type Matrix = NDArray[np.float64]
FEATURES = ("months as a customer", "complaints", "orders last year")


class Split(TypedDict):
    """Customers, and whether they left."""

    features: Matrix
    left: Matrix


class Model(TypedDict):
    """What training finds: weights, and the scale of each feature."""

    weights: list[float]
    mean: list[float]
    scale: list[float]


def customers(number: int, seed: int) -> Split:
    """Invent customers of whom those leave more often who complain and order little."""
    random = np.random.default_rng(seed)
    features = np.column_stack(
        [random.uniform(1, 60, number), random.poisson(1.0, number), random.poisson(6.0, number)]
    ).astype(float)
    tendency = -0.04 * features[:, 0] + 1.1 * features[:, 1] - 0.25 * features[:, 2] + 0.8
    left = (random.uniform(size=number) < 1 / (1 + np.exp(-tendency))).astype(float)
    return {"features": features, "left": left}


def train(data: Split, *, steps: int, rate: float) -> Model:
    """Fit the model."""
    mean, scale = data["features"].mean(axis=0), data["features"].std(axis=0)
    inputs = _scaled(data["features"], mean, scale)
    weights = np.zeros(inputs.shape[1])
    for _ in range(steps):
        error = _probability(inputs, weights) - data["left"]
        weights -= rate * inputs.T @ error / len(error)
    return {"weights": weights.tolist(), "mean": mean.tolist(), "scale": scale.tolist()}


def predict(model: Model, features: Matrix) -> Matrix:
    """Return how likely each customer leaves."""
    inputs = _scaled(features, np.array(model["mean"]), np.array(model["scale"]))
    return _probability(inputs, np.array(model["weights"]))


def accuracy(model: Model, data: Split) -> float:
    """Return the share of customers for whom the model is right."""
    return float(((predict(model, data["features"]) > 0.5) == (data["left"] > 0.5)).mean())


def _scaled(features: Matrix, mean: Matrix, scale: Matrix) -> Matrix:
    return np.column_stack([np.ones(len(features)), (features - mean) / scale])


def _probability(inputs: Matrix, weights: Matrix) -> Matrix:
    probability: Matrix = 1 / (1 + np.exp(-inputs @ weights))
    return probability
