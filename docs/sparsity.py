"""What happens with an L1 norm once penalty and decay are apart: zeros, support, error.

L1 and elastic net, coupled, decoupled and proximal, on a regression with 10 effects among 100
correlated features and on the handwritten digits. Of each form, 3 seeds, two penalties and 15 lambdas
are one compiled program; the learning rate goes down a cosine to 0, and scikit-learn has the truth.

    python docs/sparsity.py

takes a minute of processor time. It draws zeros, support and error over lambda, writes all numbers as
JSON, and prints four tables, of which the first is

    sparse regression, L1
                              lambda  zeros  small  error       not 0   not small  lasso    any  weighted
    scikit-learn                2^-3  71.3%  72.0%  2.716  0.35, 1.00  0.36, 1.00
    Adam, coupled               2^-3   0.0%  69.3%  2.722  0.10, 1.00  0.33, 1.00   1.4%   1.4%     47.1%
    Adam, decoupled             2^-1   0.0%  63.0%  2.683  0.10, 1.00  0.27, 1.00  70.1%  12.2%      3.7%
    Adam, proximal              2^-1  38.3%  63.7%  2.684  0.16, 1.00  0.28, 1.00  70.1%  12.2%      3.7%
    Adam, proximal, b1=0.99     2^-1  60.3%  67.0%  2.643  0.25, 1.00  0.31, 1.00  70.7%  11.2%      2.6%
    SGD, not proximal           2^-3   0.0%  68.7%  2.722  0.10, 1.00  0.32, 1.00   1.3%   1.3%      1.3%
    SGD, proximal               2^-3  11.3%  69.0%  2.721  0.11, 1.00  0.32, 1.00   1.2%   1.2%      1.2%

at the largest lambda whose held-out error is within 5 % of the form's best. Zeros are exact, small is
below 0.001; then precision and recall of the support that is not 0, or not small; then distances,
relative to the weights: from the lasso of the same lambda, from the nearest of any, and from the
lasso in which the penalty on each weight is multiplied by what Adam divides its gradient by. Lambda is
per unit of gradient in the coupled forms, and else per unit of learning rate.

The answer:

1. Coupled inside Adam, L1 ends at the lasso's weights to 1.4 % and makes none of them 0: Adam divides
   the penalty with the gradient, so that a weight without gradient, that of a pixel that is never
   lit, swings by 0.09 learning rates (the median) whether lambda is 2^-14 or 1.
2. Apart from the gradient the optimum is another, where m / sqrt(v) = -lambda sign(theta): no lasso
   of any lambda (12 % from the nearest) but the one that weighs each |theta| by sqrt(v), the noise of
   its gradient (3.7 %), which tests as well (2.68 against 2.72) only while there is noise: in full
   batches (`--batch 300`) the error is 3.46, as a lambda below 1 then hardly regularizes.
3. There the decoupled subgradient makes no zero either (in the digits 0.8 % of the weights, at most):
   a weight without gradient swings by up to lambda learning rates. Only the proximal step makes
   exact zeros, 38 % of the weights, or 60 % with b1 = 0.99, where the lasso has 71 %: the rest of the
   64 % below 0.001 is lifted off 0 by the noise of the last batches.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import ElasticNet, lasso_path
from tqdm import tqdm

import decoupled_wd as dwd
from decoupled_wd.plots import OKABE_ITO, house_style

NAME = "sparsity"
SEEDS, SNAPSHOTS, SMALL, WITHIN = 3, 100, 1e-3, 1.05
DRAWN = {11: "-", 8: ":"}
"""Lambdas of the digits whose training is drawn, by index, with a line style."""
L1_RATIOS = {"L1": 1.0, "elastic net": 0.5}
THRESHOLDED = {"zeros": "small", "f1": "f1_small"}


class Form(NamedTuple):
    """A place of the penalty, and the optimizer that it is in."""

    name: str
    optimizer: str
    scale: optax.GradientTransformation
    place: str
    colour: str
    width: float = 1.5


# Plain SGD does not tell a gradient from a decay: coupled and decoupled are one.
FORMS = (
    Form("Adam, coupled", "Adam", optax.scale_by_adam(), "coupled", OKABE_ITO[1], 4),
    Form("Adam, decoupled", "Adam", optax.scale_by_adam(), "decoupled", OKABE_ITO[0], 2.5),
    Form("Adam, proximal", "Adam", optax.scale_by_adam(), "proximal", OKABE_ITO[2]),
    Form("Adam, proximal, b1=0.99", "Adam", optax.scale_by_adam(0.99), "proximal", OKABE_ITO[5]),
    Form("SGD, not proximal", "SGD", optax.identity(), "decoupled", OKABE_ITO[3]),
    Form("SGD, proximal", "SGD", optax.identity(), "proximal", OKABE_ITO[4]),
)


class Data(NamedTuple):
    """Inputs and targets of each part, and which weights have an effect, where that is known."""

    train: tuple[Any, Any]
    held_out: tuple[Any, Any]
    test: tuple[Any, Any]
    support: Any = None


class Task(NamedTuple):
    """What a linear model learns: the data of a seed, the number of outputs, loss and error."""

    name: str
    data: Callable[[int], Data]
    outputs: int
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    error: Callable[[jax.Array, jax.Array], jax.Array]
    learning_rates: dict[str, float]
    log2_weight_decays: np.ndarray


def sparse_regression(seed: int) -> Data:
    """Draw 100 correlated features of unequal scale, 10 of which have an effect."""
    rng, n = np.random.default_rng(seed), 100
    correlation = 0.5 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    x = rng.multivariate_normal(np.zeros(n), correlation, size=1600)
    effects = np.zeros((n, 1))
    chosen = rng.choice(n, 10, replace=False)
    effects[chosen, 0] = rng.choice([-1, 1], 10) * rng.uniform(0.5, 1.5, 10)
    y = x @ effects + rng.normal(scale=1.5, size=(1600, 1))
    x = x * 2 ** rng.uniform(-1, 1, n)
    x, y = x.astype(np.float32), y.astype(np.float32)
    train, held_out, test = ((x[i], y[i]) for i in np.split(np.arange(1600), (300, 600)))
    return Data(train, held_out, test, effects != 0)


def digits(seed: int) -> Data:
    """Split scikit-learn's 8 x 8 handwritten digits."""
    x, y = load_digits(return_X_y=True)
    parts = np.split(np.random.default_rng(seed).permutation(len(x)), (800, 1200))
    return Data(*(((x[i] / 16).astype(np.float32), y[i].astype(np.int32)) for i in parts))


def squared(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((outputs - y) ** 2)


def cross_entropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of the logits."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


def misclassified(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """The share of examples whose largest logit is another's."""
    return jnp.mean(outputs.argmax(axis=-1) != y)


# Half the squared error is scikit-learn's unit of lambda. Each grid has every form's best inside.
TASKS = (
    Task(
        "sparse regression", sparse_regression, 1, lambda outputs, y: squared(outputs, y) / 2,
        squared, {"Adam": 0.01, "SGD": 0.03}, np.arange(-7, 0.25, 0.5),
    ),
    Task(
        "digits", digits, 10, cross_entropy,
        misclassified, {"Adam": 0.01, "SGD": 0.3}, np.arange(-14, 0.5),
    ),
)  # fmt: skip


def make_optimizer(
    form: Form, learning_rate: optax.Schedule, weight_decay: Any, l1_ratio: Any
) -> optax.GradientTransformation:
    """Put the penalty in its place: lambda is per unit of gradient, or else of learning rate."""
    step = optax.scale_by_learning_rate(learning_rate)
    mask, penalty = {"weights": True, "bias": False}, dwd.elastic_net(l1_ratio)
    if form.place == "coupled":
        term = dwd.add_elastic_net_to_grad(weight_decay, l1_ratio, mask)
        return optax.chain(term, form.scale, step)
    if form.place == "decoupled":
        term = dwd.decoupled_weight_decay(weight_decay, mask, penalty=penalty)
        return optax.chain(form.scale, term, step)
    term = dwd.proximal_weight_decay(
        lambda t: weight_decay * learning_rate(t), mask, penalty=penalty
    )
    return optax.chain(form.scale, step, term)


def predict(params: Any, x: jax.Array) -> jax.Array:
    """Outputs of the linear model."""
    return x @ params["weights"] + params["bias"]


def learning_rate(task: Task, form: Form, steps: int) -> optax.Schedule:
    """A cosine down to 0, and training converges."""
    return optax.cosine_decay_schedule(task.learning_rates[form.optimizer], steps)


def snapshot_times(steps: int) -> np.ndarray:
    """The last step before each snapshot."""
    return np.arange(1, SNAPSHOTS + 1) * (steps // SNAPSHOTS) - 1


def training_program(task: Task, form: Form, steps: int, batch: int):
    """Jit a function of (seed, data), L1 ratio and lambda that trains for all of them at once.

    It gives the weights now and then, the parameters at the end, and what Adam divides by there.
    """

    def run(key, data: Data, l1_ratio, weight_decay):
        x, y = data.train
        tx = make_optimizer(form, learning_rate(task, form, steps), weight_decay, l1_ratio)
        # Not zero, from where a subgradient would not move the weights of pixels that are never lit.
        weights = 0.1 * jax.random.normal(key, (x.shape[1], task.outputs))
        params = {"weights": weights, "bias": jnp.zeros(task.outputs)}

        def loss(params, chosen):
            return task.loss(predict(params, x[chosen]), y[chosen])

        def step(carry, t):
            params, state = carry
            chosen = jax.random.permutation(jax.random.fold_in(key, t), len(x))[:batch]
            updates, state = tx.update(jax.grad(loss)(params, chosen), state, params)
            return (optax.apply_updates(params, updates), state), None

        def stretch(carry, t):
            carry, _ = jax.lax.scan(step, carry, t)
            params = cast(Any, carry[0])
            return carry, params["weights"]

        times = jnp.arange(steps).reshape(SNAPSHOTS, -1)
        (params, state), path = jax.lax.scan(stretch, (params, tx.init(params)), times)
        nu: Any = optax.tree.get(state, "nu", {"weights": jnp.ones_like(weights)})
        return path, params, jnp.sqrt(nu["weights"]) + 1e-8

    for axes in ((None, None, None, 0), (None, None, 0, None), (0, 0, None, None)):
        run = jax.vmap(run, axes)
    return jax.jit(run)


@functools.partial(jax.jit, static_argnums=0)
def errors(error_of: Callable[..., jax.Array], params: Any, part: tuple[Any, Any]) -> jax.Array:
    """The error of every run, by seed, L1 ratio and lambda."""

    def error(params, x, y):
        return error_of(predict(params, x), y)

    for axes in ((0, None, None), (0, None, None), (0, 0, 0)):
        error = jax.vmap(error, axes)
    return error(params, *part)


def found(weights: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of the weights that are not 0, and of those that are not small."""
    result = {}
    for name, above in (("", 0), ("_small", SMALL)):
        chosen = np.abs(weights) > above
        hits = (chosen & support).sum(axis=(-2, -1))
        chosen, true = chosen.sum(axis=(-2, -1)), support.sum(axis=(-2, -1))
        result[f"precision{name}"] = hits / np.maximum(chosen, 1)
        result[f"recall{name}"] = hits / true
        result[f"f1{name}"] = 2 * hits / (chosen + true)
    return result


def elastic_net(part: tuple[Any, Any], weight_decay: Any, l1_ratio: Any, scale: Any = 1.0) -> Any:
    """Solve the problem with scikit-learn, each weight of the penalty times its `scale`."""
    x, y = (np.asarray(z, np.float64) for z in part)
    solver = ElasticNet(weight_decay, l1_ratio=l1_ratio, tol=1e-10, max_iter=10**6)
    solver.fit(x / scale, y[:, 0])
    return {"weights": (solver.coef_ / scale)[:, None], "bias": np.asarray(solver.intercept_)}


def solve(task: Task, data: Data) -> Any:
    """scikit-learn's solutions, by seed, L1 ratio and lambda."""
    solutions = [
        elastic_net((x, y), weight_decay, l1_ratio)
        for x, y in zip(*data.train, strict=True)
        for l1_ratio in L1_RATIOS.values()
        for weight_decay in 2.0**task.log2_weight_decays
    ]
    shape = (SEEDS, len(L1_RATIOS), len(task.log2_weight_decays))
    return jax.tree.map(lambda *z: np.stack(z).reshape(*shape, *z[0].shape), *solutions)


def measure(task: Task, params: Any, data: Data) -> dict[str, np.ndarray]:
    """What is reported of every run, by name: means over the seeds, by L1 ratio and lambda."""
    weights = np.asarray(params["weights"])
    result = {
        "zeros": (weights == 0).mean(axis=(-2, -1)),
        "small": (np.abs(weights) < SMALL).mean(axis=(-2, -1)),
        "held_out_error": np.asarray(errors(task.error, params, data.held_out)),
        "test_error": np.asarray(errors(task.error, params, data.test)),
    }
    if data.support is not None:
        result |= found(weights, data.support[:, None, None])
    return {name: x.mean(axis=0) for name, x in result.items()}


def distances(weights: np.ndarray, divisor: np.ndarray, data: Data, weight_decay: float) -> Any:
    """How far L1 runs, a seed each, are from lassos, relative to themselves; means over the seeds.

    From that of the same lambda; from the nearest of all lambdas; and, of the same lambda again, from
    the lasso whose penalty weighs each |theta_j| by what Adam divides its gradient by.
    """

    def distance(z: np.ndarray, lasso: np.ndarray) -> float:
        return float(np.linalg.norm(z - lasso) / np.linalg.norm(z))

    rows: list[Any] = []
    alphas: Any = 2.0 ** np.arange(1, -9, -0.05)
    for z, scale, x, y in zip(weights, divisor, *data.train, strict=True):
        same, weighted = (elastic_net((x, y), weight_decay, 1.0, s)["weights"] for s in (1, scale))
        path = lasso_path(x - x.mean(axis=0), (y - y.mean())[:, 0], alphas=alphas)[1].T
        nearest = min(distance(z, lasso) for lasso in path)
        rows.append((distance(z, same[:, 0]), nearest, distance(z, weighted[:, 0])))
    names = ("to_lasso", "to_nearest_lasso", "to_weighted_lasso")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def swing(path: np.ndarray, data: Data, rates: np.ndarray) -> dict[str, Any]:
    """What becomes of the weights of pixels that are never lit: their median size.

    Over the snapshots, at the lambdas of DRAWN; and over the second half of training, relative to the
    learning rate, at every lambda.
    """
    chosen = np.moveaxis(np.abs(path), 3, 1)[~data.train[0].any(axis=1)]
    sizes = np.median(chosen, axis=(0, -1))
    late = np.median((sizes / rates)[:, len(rates) // 2 :], axis=1)
    return {"swing": late.tolist(), "unlit": {str(i): sizes[i].tolist() for i in DRAWN}}


def make_row(
    task: Task, penalty: str, form: str, measures: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Report all lambdas, and the largest whose held-out error is near the best."""
    grid = {key: x[[*L1_RATIOS].index(penalty)].tolist() for key, x in measures.items()}
    near = np.array(grid["held_out_error"]) <= WITHIN * min(grid["held_out_error"])
    index = int(np.flatnonzero(near).max())
    row = {"task": task.name, "penalty": penalty, "form": form, "index": index}
    row["log2_weight_decay"] = float(task.log2_weight_decays[index])
    return row | {key: x[index] for key, x in grid.items()} | {"grid": grid}


def run(task: Task, steps: int, batch: int, bar: tqdm) -> list[dict[str, Any]]:
    """Train every form, and make a row of each for each penalty."""
    data = jax.tree.map(lambda *x: np.stack(x), *(task.data(seed) for seed in range(SEEDS)))
    keys = jax.vmap(jax.random.key)(np.arange(SEEDS))
    weight_decays = 2.0**task.log2_weight_decays
    axes = np.array([*L1_RATIOS.values()], np.float32), weight_decays.astype(np.float32)
    rows = []
    if data.support is not None:
        measures = measure(task, solve(task, data), data)
        rows += [make_row(task, penalty, "scikit-learn", measures) for penalty in L1_RATIOS]
    for form in FORMS:
        bar.set_description(f"{task.name}: {form.name}")
        program = training_program(task, form, steps, batch)
        path, params, divisor = jax.tree.map(np.asarray, program(keys, data, *axes))
        l1, elastic = (make_row(task, x, form.name, measure(task, params, data)) for x in L1_RATIOS)
        i = l1["index"]
        if data.support is None:
            rates = learning_rate(task, form, steps)(snapshot_times(steps))
            l1 |= swing(path[:, 0], data, np.asarray(rates))
        else:
            chosen = params["weights"][:, 0, i, :, 0], divisor[:, 0, i, :, 0]
            l1 |= distances(*chosen, data, float(weight_decays[i]))
        rows += [l1, elastic]
        bar.update()
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line per row, a table for each task and penalty."""
    columns = {
        "lambda": ("log2_weight_decay", "2^{log2_weight_decay:g}", 8),
        "zeros": ("zeros", "{zeros:.1%}", 7),
        "small": ("small", "{small:.1%}", 7),
        "error": ("test_error", "{test_error:.3f}", 7),
        "not 0": ("recall", "{precision:.2f}, {recall:.2f}", 12),
        "not small": ("recall", "{precision_small:.2f}, {recall_small:.2f}", 12),
        "lasso": ("to_lasso", "{to_lasso:.1%}", 7),
        "any": ("to_lasso", "{to_nearest_lasso:.1%}", 7),
        "weighted": ("to_lasso", "{to_weighted_lasso:.1%}", 10),
    }

    for task, penalty in dict.fromkeys((row["task"], row["penalty"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["penalty"]) == (task, penalty)]
        shown = {name: x for name, x in columns.items() if any(x[0] in row for row in mine)}
        print(f"\n{task}, {penalty}")
        print(f"{'':24}" + "".join(f"{name:>{width}}" for name, (_, _, width) in shown.items()))
        for row in mine:
            known = [(template, width) for key, template, width in shown.values() if key in row]
            print(f"{row['form']:24}" + "".join(f"{x.format_map(row):>{w}}" for x, w in known))


def draw_over_lambda(axes: Axes, task: Task, rows: Sequence[dict[str, Any]], key: str) -> None:
    """Draw a quantity of L1 by form, with a dot at the lambda of the table; dashed with a threshold."""
    looks = {form.name: (form.colour, form.width) for form in FORMS}
    weight_decays = 2.0**task.log2_weight_decays
    for row in rows:
        if (row["task"], row["penalty"]) == (task.name, "L1"):
            colour, width = looks.get(row["form"], ("black", 1.5))
            grid = row["grid"]
            axes.plot(weight_decays, grid[key], color=colour, lw=width, label=row["form"])
            axes.plot(weight_decays[row["index"]], row[key], "o", color=colour)
            if (thresholded := THRESHOLDED.get(key)) is not None:
                axes.plot(weight_decays, grid[thresholded], "--", color=colour, lw=0.9)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(r"$\lambda$, per unit of gradient (coupled) or of learning rate")


def draw_unlit(axes: Axes, rows: Sequence[dict[str, Any]], steps: int) -> None:
    """Draw what becomes of the weights of pixels that are never lit, over training."""
    time = snapshot_times(steps)
    unlit = {row["form"]: row["unlit"] for row in rows if "unlit" in row}
    for form in FORMS[:3]:
        for i, style in DRAWN.items():
            label = f"{form.name}, $\\lambda = 2^{{{TASKS[1].log2_weight_decays[i]:g}}}$"
            sizes = unlit[form.name][str(i)]
            axes.plot(time, sizes, style, color=form.colour, lw=form.width, label=label)
    rates = learning_rate(TASKS[1], FORMS[0], steps)(time)
    axes.plot(time, rates, "--", color="0.5", lw=1, label=r"learning rate $\alpha \eta_t$")
    axes.set(yscale="log", ylim=(1e-8, 30), xlabel="step")
    axes.legend(loc="upper right", ncols=2, fontsize="x-small")


def draw(rows: Sequence[dict[str, Any]], steps: int) -> Figure:
    """Draw L1's zeros, support and error over lambda, and weights without gradient over time."""
    regression, digits = TASKS
    panels = (
        (regression, "zeros", "weights that are 0 (dashed: below 0.001)"),
        (regression, "f1", "F1 of the support (dashed: above 0.001)"),
        (regression, "test_error", "mean squared test error"),
        (digits, "zeros", "weights that are 0 (dashed: below 0.001)"),
        (digits, "test_error", "test digits misclassified"),
    )
    with house_style():
        figure = Figure(figsize=(14, 7.6))
        *all_axes, last = figure.subplots(2, 3).flat
        for axes, (task, key, label) in zip(all_axes, panels, strict=True):
            draw_over_lambda(axes, task, rows, key)
            axes.set_title(f"{task.name}: {label}")
        all_axes[2].set_ylim(2, 6)
        all_axes[4].set_ylim(0, 0.25)
        draw_unlit(last, rows, steps)
        last.set_title(r"digits: median $|\theta|$ of pixels that are never lit")
        legend = all_axes[0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=7)
    return figure


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """A line per row, numbers to four digits."""

    def short(x: Any) -> Any:
        return float(f"{x:.4g}") if isinstance(x, float) else x

    lines = (json.dumps({key: jax.tree.map(short, x) for key, x in row.items()}) for row in rows)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description="Train linear models with L1 and elastic net, coupled, decoupled and proximal, and "
        "report zeros, support and error.",
    )
    # fmt: off
    add = parser.add_argument
    add("--steps", type=int, default=3000, metavar="N",
        help=f"steps of a run, a multiple of {SNAPSHOTS} (default: %(default)s)")
    add("--batch", type=int, default=64, metavar="N",
        help="examples of a step; all there are, if there are fewer (default: %(default)s)")
    add("--output", type=pathlib.Path, default=pathlib.Path(NAME), metavar="FOLDER",
        help="where the picture and the numbers go; made if missing (default: %(default)s)")
    # fmt: on
    options = parser.parse_args(argv)
    if options.steps < 1 or options.steps % SNAPSHOTS:
        parser.error(f"`--steps` is {options.steps}, and a multiple of {SNAPSHOTS} is needed.")
    if options.batch < 1:
        parser.error(f"`--batch` is {options.batch}, and at least 1 is needed.")
    return options


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train, print the tables, write picture and numbers, and give the rows."""
    options = parse(argv)
    with tqdm(total=len(TASKS) * len(FORMS), unit=" programs") as bar:
        rows = [row for task in TASKS for row in run(task, options.steps, options.batch, bar)]
    print_table(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(rows, options.steps).savefig(options.output / f"{NAME}.png", dpi=120)
    (options.output / f"{NAME}.json").write_text(as_json(rows))
    print(f"\nWrote {NAME}.png and {NAME}.json to {options.output}.")
    return rows


if __name__ == "__main__":
    main()
