"""A small Gaussian process for what predictions get wrong: exact, on NumPy's Cholesky. Pure.

The formulas are those of Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006),
algorithm 2.1. Hyperparameters are the best of a small grid by marginal likelihood: a few hundred
observations need no gradient, and a grid gives the same answer every time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

# How far one load share tells about another: errors at 0.3 and at 0.9 are half related.
LOAD_LENGTH = 0.5


@dataclass(frozen=True)
class Coordinates:
    """Where observations lie: `knobs` (n, d) in 0..1, `share` (n,) of capacity, `group` (n,).

    Observations of one configuration have the same `group`.
    """

    knobs: Matrix
    share: Vector
    group: NDArray[np.int64]


@dataclass(frozen=True)
class ErrorKernel:
    """Covariance: constant + RBF over the knobs + same configuration, all smooth in the load.

    `constant`, `signal` and `own` are standard deviations, `length` is in units of a knob's range.
    """

    constant: float
    signal: float
    own: float
    length: float

    def near(self, rbf: Matrix) -> Matrix:
        """What two sets of knobs have in common, without the same-configuration term (n, m)."""
        return np.asarray(self.constant**2 + self.signal**2 * rbf)

    def matrix(self, rbf: Matrix, same: NDArray[np.bool_], load: Matrix) -> Matrix:
        """Covariances (n, m) of what is so far apart in knobs, configuration and load."""
        return np.asarray((self.near(rbf) + self.own**2 * same) * load)

    def between(self, a: Coordinates, b: Coordinates) -> Matrix:
        """Covariances between the observations of `a` and `b` (n, m)."""
        rbf = resemblance(a.knobs, b.knobs, self.length)
        return self.matrix(rbf, a.group[:, None] == b.group, alike(a.share, b.share))

    @property
    def variance(self) -> float:
        """Prior variance of one value."""
        return self.constant**2 + self.signal**2 + self.own**2


@dataclass(frozen=True)
class Prior:
    """The grid of hyperparameters to choose from, all standard deviations of a logarithm."""

    constant: float
    signals: tuple[float, ...]
    owns: tuple[float, ...]
    lengths: tuple[float, ...] = (0.5, 1.0, 2.0)

    def kernels(self, length: float) -> Iterator[ErrorKernel]:
        """Every kernel of the grid that is this long."""
        for signal, own in itertools.product(self.signals, self.owns):
            yield ErrorKernel(self.constant, signal, own, length)


@dataclass(frozen=True)
class GaussianProcess:
    """A process with observations behind it; with none it is its prior, of mean 0."""

    kernel: ErrorKernel
    inputs: Coordinates
    cholesky: Matrix
    weights: Vector

    def means(self, knobs: Matrix, shares: Vector) -> Matrix:
        """Posterior means (n, s) of unmeasured configurations at every one of the shares.

        The covariance is a product of knobs and load, so the sum over observations is taken once
        per observation and share, not once per prediction: thousands of curves cost milliseconds.
        """
        by_share = self.weights[:, None] * alike(self.inputs.share, shares)
        rbf = resemblance(knobs, self.inputs.knobs, self.kernel.length)
        return np.asarray(self.kernel.near(rbf) @ by_share)

    def posterior(self, inputs: Coordinates) -> tuple[Vector, Vector]:
        """Mean and standard deviation at each input, without the noise of a measurement."""
        cross = self.kernel.between(self.inputs, inputs)
        explained = np.linalg.solve(self.cholesky, cross)
        variance = self.kernel.variance - (explained**2).sum(0)
        return cross.T @ self.weights, np.sqrt(np.maximum(variance, 0.0))


def fit(prior: Prior, inputs: Coordinates, values: Vector, noise_sd: float) -> GaussianProcess:
    """The process of the likeliest kernel; `noise_sd` is that of one observation."""
    same, load = inputs.group[:, None] == inputs.group, alike(inputs.share, inputs.share)
    noise = noise_sd**2 * np.eye(len(values))
    fitted: list[tuple[float, GaussianProcess]] = []
    for length in prior.lengths:
        rbf = resemblance(inputs.knobs, inputs.knobs, length)
        for kernel in prior.kernels(length):
            covariance = kernel.matrix(rbf, same, load) + noise
            cholesky = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
            weights: Vector = np.asarray(np.linalg.solve(covariance, values), dtype=np.float64)
            # The log marginal likelihood, without what is the same for every kernel.
            evidence = -0.5 * values @ weights - np.log(np.diag(cholesky)).sum()
            fitted.append((float(evidence), GaussianProcess(kernel, inputs, cholesky, weights)))
    return max(fitted, key=lambda pair: pair[0])[1]


def resemblance(a: Matrix, b: Matrix, length: float) -> Matrix:
    """The RBF of two sets of knobs (n, m)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(squared, 0.0) / (2 * length**2)))


def alike(a: Vector, b: Vector) -> Matrix:
    """How much loads have in common (n, m)."""
    return np.asarray(np.exp(-((a[:, None] - b) ** 2) / (2 * LOAD_LENGTH**2)))
