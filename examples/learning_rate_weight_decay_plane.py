"""In which form of decay do learning rate and weight decay separate, and which trains best?

The experiment of Figures 1 and 2 of Loshchilov and Hutter, "Decoupled Weight Decay Regularization"
(arXiv 1711.05101), asked of your setting: put your data in `read_digits`, your model in `Network`,
and move the centres in `OPTIMIZERS`. As it stands, a perceptron learns 400 handwritten digits, 15 %
of them mislabelled. Five optimizers each train a plane of 8 learning rates by 8 decays, powers of
two, with a cosine schedule and 4 seeds; the 256 runs of an optimizer are one compiled program.

    python examples/learning_rate_weight_decay_plane.py

takes 2 to 3 minutes on two cores of an AMD EPYC that others use too. It draws the planes with the
ten best cells of each circled, writes the table as CSV, and prints it:

    optimizer           test error   rate, decay   near  slope  rates (edge)  interaction  chance  cells
    Adam + L2           7.4% ± 1.4%  2^-5, 2^-6    6     +0.40  8 (0)         41%          4%      43
    AdamW, coupled      7.9% ± 1.5%  2^-10, 2^0    18    +0.13  8 (0)         22%          3%      51
    AdamW of the paper  7.9% ± 1.5%  2^-10, 2^-10  11    +0.96  8 (2)         50%          2%      40
    SGD + L2            7.2% ± 1.3%  2^-3, 2^-6    3     +0.11  7 (0)         31%          6%      37
    SGDW of the paper   7.5% ± 1.4%  2^-2, 2^-5    5     +1.00  7 (1)         16%          6%      28

* test error: of the best cell, the mean over seeds ± their standard deviation. The cell is chosen on
  the test set, which flatters all five alike. Near: cells whose error is at most 1.1 times that.
* slope of log2(best decay) against log2(learning rate), 0 where the two separate. Of the "rates" it
  is fitted to, "(edge)" have their best decay at the edge of the plane; a better one may lie outside.
* interaction: the part of the variance of log error over "cells" cells that no effect of the rate
  plus effect of the decay explains; chance between seeds alone would leave "chance". Where few cells
  count, as on SGDW's narrow diagonal, so many effects fit almost anything, and it comes out small.

So the paper's finding is not found here. In its own two forms the best decay doubles with the learning
rate: the good cells are a diagonal. In the others it hardly depends on it: 2^-6 in both L2 forms, 2^0
or 2^1 in the coupled one, at all but the lowest rates. There training is cut short and decay matters
little, so that chance picks the best, and the slope depends on how many such rates the plane has:
on 16 x 16 cells with 2 seeds it is +0.6, +0.6, +1.3, +0.6, +1.3, in the order of the table.
The two AdamW planes are the same runs, one sheared into the other, since a decay of lambda per unit of
learning rate is alpha lambda per step: which one stands upright is a fact about the task. None trains
best for certain: seeds, whose wrong labels differ, spread by more than the five do. But they move all
five alike, and SGD + L2 is ahead of AdamW by 0.2 to 1.2 % in each.

`--data cifar10` reads files you have, and trains the same perceptron on flat pixels. It wants an
accelerator (two cores need hours), more `--steps`, and perhaps other centres.
"""

import argparse
import csv
import functools
import pathlib
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd import plots

NAME = "learning_rate_weight_decay_plane"
TRAINING_DIGITS, BATCH_SIZE, HIDDEN_UNITS, CLASSES = 400, 64, 64, 10
STEPS_PER_TICK = 50


class Optimizer(NamedTuple):
    """A form of decay, and the centre of its plane: powers of two, given by their exponents."""

    name: str
    make: Callable[..., optax.GradientTransformation]
    learning_rate: int
    weight_decay: int
    weight_decay_per: str


coupled_adamw = functools.partial(dwd.adamw, coupling="learning_rate")
# Adam's forms share their learning rates, and so do SGD's. The decays differ in unit, so in range.
# On the digits, `--grid 16 --seeds 2` has each best cell inside these planes.
OPTIMIZERS = (
    Optimizer("Adam + L2", dwd.adam_l2, -7, -6, "unit of gradient"),
    Optimizer("AdamW, coupled", coupled_adamw, -7, 0, "unit of learning rate"),
    Optimizer("AdamW of the paper", dwd.adamw, -7, -7, "step"),
    Optimizer("SGD + L2", dwd.sgd_l2, -3, -6, "unit of gradient"),
    Optimizer("SGDW of the paper", dwd.sgdw, -3, -6, "step"),
)


class Data(NamedTuple):
    """Flat images in [0, 1] and integer labels."""

    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any


def read_digits() -> Data:
    """Split scikit-learn's 8 x 8 handwritten digits: few to train on, the rest to test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    n = TRAINING_DIGITS
    return Data(images[:n], labels[:n], images[n:], labels[n:])


def read_cifar10(folder: pathlib.Path) -> Data:
    """Read the python-version archive. Unpickling runs code: read only an archive you trust."""

    def read(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        batches = [pickle.loads((folder / x).read_bytes(), encoding="bytes") for x in names]
        images = np.concatenate([batch[b"data"] for batch in batches])
        labels = np.concatenate([batch[b"labels"] for batch in batches])
        return images.astype(np.float32) / 255, labels.astype(np.int32)

    return Data(*read([f"data_batch_{i}" for i in range(1, 6)]), *read(["test_batch"]))


class Network(nn.Module):
    """A perceptron with two hidden layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Give the logits of flat images."""
        for _ in range(2):
            x = nn.relu(nn.Dense(HIDDEN_UNITS)(x))
        return nn.Dense(CLASSES)(x)


class Seed(NamedTuple):
    """All that is random in a run: the same in every cell of a plane, and for every optimizer."""

    params: Any
    labels: jax.Array
    batch_key: jax.Array


def draw_seed(number: jax.Array, data: Data, label_noise: float) -> Seed:
    """Draw initial weights, and replace a share of the labels, each by another class."""
    weights, which, shift, batches = jax.random.split(jax.random.key(number), 4)
    labels = data.train_labels
    replaced = jax.random.permutation(which, len(labels)) < jnp.round(label_noise * len(labels))
    others = (labels + jax.random.randint(shift, labels.shape, 1, CLASSES)) % CLASSES
    params = Network().init(weights, data.train_images[:1])["params"]
    return Seed(params, jnp.where(replaced, others, labels), batches)


def training_programs(optimizer: Optimizer, steps: int, chunk: int):
    """Jit the start of all runs of a plane, and their advance by `chunk` steps."""
    schedule = optax.cosine_decay_schedule(1.0, steps)

    def start(learning_rate, weight_decay, seed: Seed):
        tx = optimizer.make(learning_rate, weight_decay=weight_decay, schedule=schedule)
        return jnp.int32(0), seed.params, tx.init(seed.params)

    def advance(carry, images, learning_rate, weight_decay, seed: Seed):
        step, params, opt_state = carry
        # The state is made here because `tx` closes over the traced numbers of this run.
        tx = optimizer.make(learning_rate, weight_decay=weight_decay, schedule=schedule)
        state = TrainState(
            step=step, apply_fn=Network().apply, params=params, tx=tx, opt_state=opt_state
        )

        def train(state: TrainState, _):
            key = jax.random.fold_in(seed.batch_key, state.step)
            batch = jax.random.randint(key, (BATCH_SIZE,), 0, len(images))

            def loss(params):
                logits: Any = state.apply_fn({"params": params}, images[batch])
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, seed.labels[batch])
                return losses.mean()

            return state.apply_gradients(grads=jax.grad(loss)(state.params)), None

        state, _ = jax.lax.scan(train, state, length=chunk)
        return state.step, state.params, state.opt_state

    # Images and step stay unmapped: nothing is copied, and a minibatch is drawn once per seed.
    mapped = (None, 0, 0)

    def over_the_plane(function, *in_axes):
        for axes in ((None, 0, None), (0, None, None), (None, None, 0)):
            function = jax.vmap(function, (*in_axes, *axes), mapped)
        return function

    return (
        jax.jit(over_the_plane(start)),
        jax.jit(over_the_plane(advance, mapped, None), donate_argnums=0),
    )


@jax.jit
def share_misclassified(params: Any, data: Data) -> jax.Array:
    """Test error of every run; 1 where a logit is not finite."""

    def error(params):
        logits: Any = Network().apply({"params": params}, data.test_images)
        wrong = jnp.mean(jnp.argmax(logits, axis=-1) != data.test_labels)
        return jnp.where(jnp.isfinite(logits).all(), wrong, 1.0)

    # Seed by seed: the activations of all runs on all test images need not fit in memory.
    return jax.lax.map(jax.vmap(jax.vmap(error)), params)


def fit_slope(mean: np.ndarray, log2_rates: np.ndarray, log2_decays: np.ndarray) -> dict[str, Any]:
    """Fit log2(best decay) = constant + slope * log2(learning rate), by ordinary least squares.

    The learning rates are those whose lowest error is within twice the plane's; one alone has slope
    NaN. Where a best decay is at the edge of the plane, a better one may lie outside.
    """
    used = mean.min(axis=1) <= 2 * mean.min()
    best = mean.argmin(axis=1)[used]
    slope = np.polyfit(log2_rates[used], log2_decays[best], 1)[0] if len(best) > 1 else np.nan
    at_edge = np.isin(best, (0, len(log2_decays) - 1)).sum()
    return {"slope": slope, "slope_learning_rates": len(best), "slope_decays_at_edge": at_edge}


def fit_additive(errors: np.ndarray) -> dict[str, Any]:
    """Fit log e[i, j] = row[i] + column[j] + residual[i, j] by least squares, where e <= 2 min(e).

    The interaction is var(residual) / var(log e), NaN on a flat plane. Seeds alone would leave
    s^2 (n - p) / n / var(log e), for n cells and a fit of rank p; s^2 is the variance of a cell's
    mean over seeds, less what a seed does to all cells alike.
    """
    mean = errors.mean(axis=0)
    near = mean <= 2 * mean.min()
    log, log_runs = (np.log(np.maximum(x, 1e-9)) for x in (mean[near], errors[:, near]))
    seeds, n = log_runs.shape
    i, j = np.nonzero(near)
    effects = np.hstack([np.eye(mean.shape[0])[i], np.eye(mean.shape[1])[j]])
    fit, _, rank, _ = np.linalg.lstsq(effects, log)
    own = log_runs - log_runs.mean(axis=1, keepdims=True)
    chance = own.var(axis=0, ddof=1).sum() / max(n - 1, 1) / seeds * (n - rank) / n
    total = log.var() if np.ptp(log) > 0 else np.nan
    interaction = (log - effects @ fit).var() / total
    names = ("interaction", "interaction_by_chance", "interaction_cells")
    return dict(zip(names, (interaction, chance / total, n), strict=True))


def summarize(
    optimizer: Optimizer, errors: np.ndarray, log2_rates: np.ndarray, log2_decays: np.ndarray
) -> dict[str, Any]:
    """Make the table's row of a plane of errors, indexed by seed, learning rate and decay."""
    mean = errors.mean(axis=0)
    i, j = np.unravel_index(mean.argmin(), mean.shape)
    return {
        "optimizer": optimizer.name,
        "weight_decay_per": optimizer.weight_decay_per,
        "test_error": mean[i, j],
        "test_error_spread": errors[:, i, j].std(ddof=1),
        "log2_learning_rate": log2_rates[i],
        "log2_weight_decay": log2_decays[j],
        "cells_within_10_percent": (mean <= 1.1 * mean[i, j]).sum(),
        **fit_slope(mean, log2_rates, log2_decays),
        **fit_additive(errors),
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line per row: the best cell's error, its spread over seeds and its place, and so on."""
    columns = {
        "optimizer": "{optimizer}",
        "test error": "{test_error:.1%} ± {test_error_spread:.1%}",
        "rate, decay": "2^{log2_learning_rate}, 2^{log2_weight_decay}",
        "near": "{cells_within_10_percent}",
        "slope": "{slope:+.2f}",
        "rates (edge)": "{slope_learning_rates} ({slope_decays_at_edge})",
        "interaction": "{interaction:.0%}",
        "chance": "{interaction_by_chance:.0%}",
        "cells": "{interaction_cells}",
    }
    lines = [list(columns), *([x.format_map(row) for x in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(x.ljust(width) for x, width in zip(line, widths, strict=True)).rstrip())


def exponents(centre: int, count: int) -> np.ndarray:
    """Exponents of neighbouring powers of two, the centre's in the middle."""
    return np.arange(count) + centre - count // 2


def draw(planes: Sequence[np.ndarray]) -> Figure:
    """Draw the mean test errors on one scale, the ten best cells of each plane circled."""
    with plots.house_style():
        figure = Figure(figsize=(17, 3.9))
        all_axes = figure.subplots(1, len(planes), squeeze=False)[0]
    for optimizer, plane, axes in zip(OPTIMIZERS, planes, all_axes, strict=True):
        centres = optimizer.learning_rate, optimizer.weight_decay
        plots.plane(100 * plane, *(2.0 ** exponents(x, len(plane)) for x in centres), axes=axes)
        axes.set_title(optimizer.name)
        axes.set_xlabel(f"weight decay $\\lambda$ per {optimizer.weight_decay_per}")
        axes.set_ylabel("")
    all_axes[0].set_ylabel("learning rate $\\alpha$ per step")
    plots.share_colours(all_axes, "mean test error (%)")
    return figure


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Data]:
    """Read the options and the data that they name."""
    parser = argparse.ArgumentParser(
        description="Train five forms of weight decay over planes of learning rates and decays, and "
        "report where the two separate and which trains best.",
    )
    # fmt: off
    add = parser.add_argument
    add("--data", choices=("digits", "cifar10"), default="digits",
        help=f"scikit-learn's digits, {TRAINING_DIGITS} of them to train on, or all of CIFAR-10 "
        "(default: %(default)s)")
    add("--data-dir", type=pathlib.Path, metavar="FOLDER",
        help="for cifar10: the folder cifar-10-batches-py of the python-version archive")
    add("--grid", type=int, default=8, metavar="N",
        help="learning rates of a plane, and decays; 2 or more (default: %(default)s)")
    add("--steps", type=int, default=800, metavar="N",
        help=f"steps of a run, with {BATCH_SIZE} examples each (default: %(default)s)")
    add("--seeds", type=int, default=4, metavar="N",
        help="runs of each cell; 2 or more (default: %(default)s)")
    add("--label-noise", type=float, default=0.15, metavar="SHARE",
        help="training labels replaced by another class; in [0, 1) (default: %(default)s)")
    add("--output", type=pathlib.Path, default=pathlib.Path(NAME), metavar="FOLDER",
        help="where the picture and the table go; made if missing (default: %(default)s)")
    # fmt: on
    options = parser.parse_args(argv)
    for name, least in (("grid", 2), ("steps", 1), ("seeds", 2)):
        if getattr(options, name) < least:
            parser.error(f"`--{name}` is {getattr(options, name)}, and at least {least} is needed.")
    if not 0 <= options.label_noise < 1:
        parser.error(f"`--label-noise` is {options.label_noise}, and a share in [0, 1) is needed.")
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"`--output` is {options.output}, which is a file, and a folder is needed.")
    if options.data == "digits":
        if options.data_dir:
            parser.error("`--data-dir` is for `--data cifar10`; the digits come with scikit-learn.")
        return options, read_digits()
    if not options.data_dir:
        parser.error("`--data cifar10` needs `--data-dir`, the folder cifar-10-batches-py.")
    try:
        return options, read_cifar10(options.data_dir)
    except FileNotFoundError as error:
        parser.error(
            f"`--data-dir` lacks {error.filename}. The folder cifar-10-batches-py of the "
            "python-version archive holds data_batch_1 to data_batch_5 and test_batch."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train the five planes, print the table, write picture and table."""
    options, data = parse(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    data = jax.tree.map(jnp.asarray, data)
    # Calls of one length are one compilation, so the length divides the steps.
    chunk = max(x for x in range(1, STEPS_PER_TICK + 1) if options.steps % x == 0)
    draw_seeds = jax.jit(jax.vmap(draw_seed, (0, None, None)))
    seeds = draw_seeds(np.arange(options.seeds), data, options.label_noise)
    planes, rows = [], []
    print(f"{len(OPTIMIZERS)} programs, each of {options.seeds * options.grid**2} runs at once.")
    with tqdm(total=len(OPTIMIZERS) * options.steps, unit=" steps") as bar:
        for optimizer in OPTIMIZERS:
            bar.set_description(optimizer.name)
            log2_rates = exponents(optimizer.learning_rate, options.grid)
            log2_decays = exponents(optimizer.weight_decay, options.grid)
            axes = 2.0**log2_rates, 2.0**log2_decays, seeds
            start, advance = training_programs(optimizer, options.steps, chunk)
            carry = start(*axes)
            for _ in range(options.steps // chunk):
                carry = jax.block_until_ready(advance(carry, data.train_images, *axes))
                bar.update(chunk)
            _, params, _ = carry
            errors = np.asarray(share_misclassified(params, data), np.float64)
            planes.append(errors.mean(axis=0))
            rows.append(summarize(optimizer, errors, log2_rates, log2_decays))
    print_table(rows)
    draw(planes).savefig(options.output / f"{NAME}.png", dpi=120)
    with (options.output / f"{NAME}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0].keys(), *(row.values() for row in rows)])
    print(f"Wrote {NAME}.png and {NAME}.csv to {options.output}.")


if __name__ == "__main__":
    main()
