"""The checker for users: do two optimizers take the same path, and if not, where do they part?

Two programs of one algorithm round differently, so the gap between them is seldom zero. What rounding
can do on the very problem at hand is measured: both sides also run with every arithmetic operation
off by a few units in the last place. That spread is the floor which the gap is held against.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Literal as JaxprLiteral

from decoupled_wd import _check
from decoupled_wd._tree import path_name
from decoupled_wd._typing import DType, Params, Updates
from decoupled_wd.equivalence._check import float64_on_cpu
from decoupled_wd.equivalence._problems import REGRESSION
from decoupled_wd.equivalence._relation import Problem

Side: TypeAlias = optax.GradientTransformation | Callable[[], optax.GradientTransformation]
Gradient: TypeAlias = Callable[[Params, jax.Array], Updates]

STEPS = 300
"""How many steps are run where neither the caller nor the problem says so."""
_DRAWS = 8  # A power of 2: one for each odd amount from -7 to 7 that an operation may be off by.


class Comparison(NamedTuple):
    """What `check` found; `str` makes it a few lines. Paths are those of the left's parameters.

    Example:
        >>> import numpy as np
        >>> import optax
        >>> from decoupled_wd import equivalence as eq
        >>> sgd, scale = optax.sgd(0.5), optax.scale(-0.5)
        >>> print(eq.check(sgd, scale, params={"w": 1.0}, gradients={"w": np.ones(3)}))
        identical to the last bit
        largest deviation 0.0e+00, 0.0e+00 of the largest parameter, 0 ulp
        3 steps, recorded gradients, open loop, float64
    """

    verdict: Literal["identical", "rounding", "difference"]
    """`"identical"`: to the last bit. `"rounding"`: the gap of no leaf exceeds the floor at any step.
    `"difference"`: that of some leaf does."""
    deviation: float
    """The largest distance of a parameter from its counterpart, over all steps."""
    relative: float
    """The same, relative to the left's largest parameter."""
    ulps: float
    """The largest deviation of a leaf, in units in the last place of its largest parameter."""
    step: int | None
    """The first update, counted from 0, after which a gap exceeds the floor; None if there is none."""
    path: str | None
    """The leaf where it does so; of several, the one that exceeds it by the largest factor."""
    gap: float
    """The deviation there; the largest one if no gap exceeds the floor."""
    floor: float
    """What rounding explains there."""
    parted: tuple[tuple[str, int], ...]
    """Every leaf that parts, and its first step."""
    steps: int
    problem: str
    open_loop: bool
    dtype: str
    """What it was computed in; several, if the parameters have several."""
    notes: tuple[str, ...]
    """What a difference may come from, if it can be told."""

    def __str__(self) -> str:
        loop = "open" if self.open_loop else "closed"
        where = f" at {self.path!r}" if self.path else ""
        lines = [
            {
                "identical": "identical to the last bit",
                "rounding": f"rounding: the gap of {self.gap:.1e} stays within the {self.floor:.1e} "
                "that rounding explains",
                "difference": f"difference: they part at step {self.step}{where}, where the "
                f"gap is {self.gap:.1e} and rounding explains {self.floor:.1e}",
            }[self.verdict],
            f"largest deviation {self.deviation:.1e}, {self.relative:.1e} of the largest parameter, "
            f"{self.ulps:.3g} ulp",
            f"{self.steps} steps, {self.problem}, {loop} loop, {self.dtype}",
        ]
        if len(self.parted) > 1:
            some = ", ".join(f"{path!r} at {step}" for path, step in self.parted[:6])
            more = len(self.parted) - 6
            lines.append(f"first steps: {some}{f' and {more} more' if more > 0 else ''}")
        return "\n".join([*lines, *self.notes])


def check(
    left: Side,
    right: Side,
    *,
    params: Params | None = None,
    problem: Gradient | Problem | None = None,
    gradients: Updates | Sequence[Updates] | None = None,
    parameters: Callable[[Params], Params] | None = None,
    state: Callable[[Any, Params], Any] | None = None,
    extra_args: Callable[[Params, jax.Array], dict[str, Any]] | None = None,
    steps: int | None = None,
    dtype: DType = "float64",
) -> Comparison:
    r"""Run two optimizers side by side, and say whether and where they part.

    $$\text{gap}_t = \max |\theta_t - \text{parameters}(\phi_t)|, \qquad \theta_0 =
    \text{parameters}(\phi_0)$$

    leaf by leaf, with $\theta$ the left's parameters and $\phi$ the right's, both under `jit` and
    `lax.scan` in one program. The gap is rounding as long as it stays within a floor, and a
    difference from the first step on at which it does not.

    The floor is measured on the same problem: each side is run 8 more times, with the last three
    bits changed in the result of every operation that rounds, in the gradient, in the update and in
    what adds it. The floor is twice how far that took any of them from its side so far, and at least
    8 units in the last place of the leaf's largest parameter. So it contains what no fixed tolerance
    knows: 1 - b2**t loses three digits at first, a sum that cancels loses all of them, a sign flips,
    and a loop amplifies what came before or forgets it. A number that needs at most half of its
    digits, such as a step count, is taken for exact. So is what is done in a narrower dtype than
    every parameter's, as in a bfloat16 moment, or in a schedule that divides an
    int32 step count, which JAX does in float32: that is part of what an optimizer is.

    A difference smaller than the floor is not seen. It shows where it matters: an eps shows in
    gradients of its size, a schedule in those steps in which it acts. The built-in problem therefore
    has gradients of sizes from 1 to 1e-9.

    Args:
        left: an Optax transformation, or a function without arguments that makes one. Pass the
            function if it is made from arrays: it is called where float64 is enabled, whereas a
            float32 0.1 made before is the number 0.100000001.
        right: the other one.
        params: where the right side starts, any tree of floating or complex arrays, and where the
            left side does too unless `parameters` is given; the start of `problem` if None.
        problem: closed loop: the gradient at a side's own parameters, as a function of parameters and
            0-based step, or a `Problem` of the catalogue, each micro-step of which is a step here. If
            None, and `gradients` too, it is a small stochastic convex problem on the tree `params`,
            or without them the catalogue's regression.
        gradients: open loop: recorded gradients that both sides see, as a tree with a leading axis of
            steps or as a sequence of trees.
        parameters: from the right's parameters to the left's, if those are not the same: gradients
            are taken there and pulled back through it, and there the two are compared.
        state: from the right's state as `init` makes it, and its parameters, to its initial state.
        extra_args: from parameters (the left's kind) and step to keyword arguments of `update`, such
            as `value`; a side that takes none is not given them.
        steps: how many; those recorded or in the `Problem` if None, and else 300. A schedule differs
            only in the steps that are run.
        dtype: what real arrays are cast to, complex ones accordingly. With float64 everything runs
            on CPU. None runs parameters and gradients as given, on the default backend: then the ulps
            and `"identical"` are what matters, and `"rounding"` says little in 16 bits.

    Returns:
        A `Comparison`. It holds for these steps of this problem.

    Raises:
        TypeError: a side is not a transformation; a leaf, a gradient or an update has a dtype that
            does not fit. The message names side and path.
        ValueError: trees or shapes differ, there are fewer gradients than `steps`, or a gradient or
            parameter is not finite. The message names side, path and step.

    Example:
        A rate that is 0.5 at step 2 alone, and else 0.1 as on the left. With gradients of 1 the left
        ends at 1 - 0.3, and the right at 1 - 0.7.

        >>> import jax.numpy as jnp
        >>> import numpy as np, optax
        >>> from decoupled_wd import equivalence as eq
        >>> jumps = optax.sgd(lambda step: jnp.where(step == 2, 0.5, 0.1))
        >>> found = eq.check(optax.sgd(0.1), jumps, params={"w": 1.0}, gradients={"w": np.ones(3)})
        >>> found.verdict, found.step, found.path, round(found.deviation, 9)
        ('difference', 2, 'w', 0.4)

    Source: the floor is Monte Carlo arithmetic, Parker, UCLA CSD-970002 (1997).
    """
    if problem is not None and gradients is not None:
        raise ValueError(
            "`problem` and `gradients` are both given, and one is needed. Leave one out."
        )
    if params is None and problem is None and gradients is None:
        problem = REGRESSION
    if params is None:
        if not isinstance(problem, Problem):
            raise ValueError(
                "`params` is None, and `problem` and `gradients` do not say where to start. Pass "
                "the initial parameters."
            )
        params = problem.theta0
    if steps is not None:
        _check.check_integer("steps", steps, minimum=1)
    if dtype is not None:
        with jax.enable_x64(True):
            dtype = _check.canonical_dtype("dtype", dtype)
    with _precision(params, dtype):
        phi = _as_arrays("`params`", params, dtype)
        view = _itself if parameters is None else parameters
        theta = _as_arrays(
            "`parameters`, the map to the left's parameters, returns", view(phi), None
        )
        loop = _loop(problem, gradients, theta, steps, dtype)
        extra = _no_extra_args if extra_args is None else extra_args
        sides = (
            _side("left", left, theta, _itself, None, loop, extra),
            _side("right", right, phi, view, state, loop, extra),
        )
        measured = _run(sides, loop, extra)
        notes = tuple(note for side in sides for note in side.notes)
    _check_finite(measured, _paths(theta), _paths(phi))
    return _report(measured, theta, _paths(theta), loop, notes)


def assert_equivalent(left: Side, right: Side, **options: Any) -> None:
    """Require that two optimizers take the same path up to rounding.

    Args:
        left: as in `check`.
        right: as in `check`.
        options: as in `check`.

    Returns:
        Nothing.

    Raises:
        AssertionError: the verdict of `check` is `"difference"`; the message is the report.
        TypeError: as in `check`.
        ValueError: as in `check`.

    Example:
        >>> import optax
        >>> from decoupled_wd import equivalence as eq
        >>> twice = optax.chain(optax.scale(-0.25), optax.scale(2.0))
        >>> eq.assert_equivalent(optax.sgd(0.5), twice, steps=5)
    """
    found = check(left, right, **options)
    if found.verdict == "difference":
        raise AssertionError(str(found))


# What is run


class _Loop(NamedTuple):
    """Where gradients come from."""

    gradient: Callable[[Params, Any], Updates]
    inputs: Any
    """What `gradient` is given, step by step along a leading axis."""
    steps: int
    name: str
    open_loop: bool


class _Side(NamedTuple):
    name: str
    tx: optax.GradientTransformationExtraArgs
    view: Callable[[Params], Params]
    """From this side's parameters to the left's."""
    params: Params
    state: Any
    notes: tuple[str, ...]


class _Measured(NamedTuple):
    """Of every step and leaf, in that order of axes."""

    gap: Any
    spread: Any
    """How far noise took a side from itself."""
    size: Any
    """The left's largest parameter."""
    finite_gradient: tuple[Any, Any]
    """Of the left and of the right."""
    finite_params: tuple[Any, Any]


def _itself(params: Params) -> Params:
    return params


def _no_extra_args(params: Params, step: jax.Array) -> dict[str, Any]:
    del params, step
    return {}


def _precision(params: Params, dtype: DType) -> contextlib.AbstractContextManager[None]:
    """float64 and the CPU, which has it, if asked for; float64 parameters as given need the first."""
    if dtype == np.float64:
        return float64_on_cpu()
    wide = jax.config.jax_enable_x64 or any(  # pyright: ignore[reportAttributeAccessIssue]
        getattr(leaf, "dtype", None) in (np.float64, np.complex128)
        for leaf in jax.tree.leaves(params)
    )
    return jax.enable_x64(dtype is None and wide)


def _as_arrays(what: str, tree: Any, dtype: DType) -> Any:
    """Arrays of a dtype, or of their own if that is None, without weak types."""

    def convert(path: Any, leaf: Any) -> jax.Array:
        own = jnp.result_type(leaf) if _check.is_array(leaf) else None
        if own is None or not jnp.issubdtype(own, jnp.inexact):
            given = f"{leaf!r}" if own is None else f"{own}"
            raise TypeError(
                f"{what} at {path_name(path)!r} is {given}, and a floating or complex array is "
                "needed. Put None in place of what is not trained, as `eqx.filter` does."
            )
        to = own
        if dtype is not None:
            complex_ = jnp.issubdtype(own, jnp.complexfloating)
            to = jnp.result_type(dtype, jnp.complex64) if complex_ else dtype
        return jnp.asarray(np.asarray(leaf), to)

    arrays = jax.tree_util.tree_map_with_path(convert, tree)
    if not jax.tree.leaves(arrays):
        raise ValueError(f"{what} has no arrays, and there is nothing to compare. Pass some.")
    return arrays


def _loop(
    problem: Gradient | Problem | None,
    gradients: Any,
    theta: Params,
    steps: int | None,
    dtype: DType,
) -> _Loop:
    if gradients is not None:
        recorded = _as_arrays("`gradients`", _stacked(gradients, theta), dtype)
        known, name = _recorded_steps(recorded, theta), "recorded gradients"
        inputs, gradient = recorded, _as_recorded
    elif isinstance(problem, Problem):
        _check_alike(
            "left: its start", theta, problem.theta0, "the problem's start",
            "Pass `params` and `parameters` that give parameters as the problem's.",
        )  # fmt: skip
        batches = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), problem.batches)
        inputs = jax.tree.map(lambda x: jnp.asarray(x, dtype if _bits(x.dtype) else None), batches)
        known, name = jax.tree.leaves(batches)[0].shape[0], problem.name
        gradient = functools.partial(_of_batch, problem.gradient)
    else:
        if problem is not None and not callable(problem):
            raise TypeError(
                f"`problem` is {problem!r}, and a function of parameters and step is needed, or a "
                "`Problem`. Recorded gradients are passed as `gradients`."
            )
        function = _built_in if problem is None else problem
        name = "built-in problem" if problem is None else getattr(problem, "__name__", "problem")
        known, inputs = None, ()
        gradient = functools.partial(_of_step, function)
    asked = steps or known or STEPS
    if known is not None and asked > known:
        raise ValueError(
            f"`steps` is {asked}, and there are gradients for {known} at both sides, left and right. "
            "Pass fewer steps, or more gradients."
        )
    inputs = jnp.arange(asked, dtype=jnp.int32), jax.tree.map(lambda x: x[:asked], inputs)
    return _Loop(gradient, inputs, asked, name, gradients is not None)


def _as_recorded(params: Params, x: Any) -> Updates:
    del params
    return x[1]


def _of_batch(function: Any, params: Params, x: Any) -> Updates:
    return function(params, x[1])


def _of_step(function: Any, params: Params, x: Any) -> Updates:
    return function(params, x[0])


def _stacked(gradients: Any, theta: Params) -> Any:
    """Recorded gradients with a leading axis of steps."""
    structure = jax.tree.structure(theta)
    sequence = isinstance(gradients, (list, tuple)) and jax.tree.structure(gradients) != structure
    if not sequence:
        return gradients
    for step, tree in enumerate(gradients):
        _check_alike(
            f"`gradients` of step {step}, for both sides,", tree, theta, "the left's parameters",
            "Record one gradient for every parameter.",
        )  # fmt: skip
    if not gradients:
        raise ValueError("`gradients` has no steps, and one or more is needed.")
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *gradients)


def _recorded_steps(recorded: Updates, theta: Params) -> int:
    known = jnp.shape(jax.tree.leaves(recorded)[0])[:1] or (0,)
    with_axis = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*known, *x.shape), x.dtype), theta)
    _check_alike(
        "`gradients`, for both sides,", recorded, with_axis,
        "the left's parameters with a leading axis of steps",
        "Record one gradient for every parameter and step.",
    )  # fmt: skip
    return known[0]


def _built_in(params: Params, step: jax.Array) -> Updates:
    """The gradient of sum_i s_i log cosh(theta_i - 1 - n_ti), with n in [-1, 1] and s from 1 to 1e-9."""
    leaves, structure = jax.tree.flatten(params)
    found = []
    for index, leaf in enumerate(leaves):
        real = leaf.real.dtype
        element = np.arange(leaf.size, dtype=np.uint32).reshape(leaf.shape)
        s = jnp.asarray(1e-3 ** ((element + index) % 4), real)
        slope = jnp.tanh(leaf.real - 1 - _noise(step, element, 2 * index).astype(real))
        if jnp.iscomplexobj(leaf):  # JAX's gradient is the conjugate of the direction of ascent.
            n = _noise(step, element, 2 * index + 1).astype(real)
            slope = jax.lax.complex(slope, -jnp.tanh(leaf.imag - 1 - n))
        found.append(slope * s)
    return structure.unflatten(found)


def _noise(step: jax.Array, element: np.ndarray, stream: int) -> jax.Array:
    """Numbers in [-1, 1): a hash, as `jax.random` would take most of the time to compile."""
    x = (
        jnp.asarray(element) * np.uint32(2654435769)
        + (step.astype(jnp.uint32) * 1013 + stream) * 40503
        + 1
    )
    x = (x ^ (x >> 16)) * np.uint32(2246822507)
    x = (x ^ (x >> 13)) * np.uint32(3266489909)
    return (x >> 8).astype(jnp.float32) * 2.0**-23 - 1


# Checks of the sides


@contextlib.contextmanager
def _naming(side: str) -> Iterator[None]:
    """Add the side to what a transformation itself complains of."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was raised by `{side}`.")
        raise


def _side(
    name: str, tx: Any, params: Params, view: Any, change_state: Any, loop: _Loop, extra_args: Any
) -> _Side:
    """One side, ready to run: whatever can be known without running it is checked here."""
    if not isinstance(tx, optax.GradientTransformation) and callable(tx):
        with _naming(name):
            tx = tx()
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(
            f"`{name}` is {tx!r}, and an `optax.GradientTransformation` is needed, or a function "
            "without arguments that makes one."
        )
    tx = optax.with_extra_args_support(tx)
    with _naming(name):
        state = jax.tree.map(jnp.asarray, tx.init(params))
    if change_state is not None:
        changed = change_state(state, params)
        _check_alike(
            f"{name}: what `state` returns", changed, state, "the state that `init` makes",
            "Replace values in the state that it is given, as `optax.tree.set` does.",
        )  # fmt: skip
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), changed, state)
    side = _Side(name, tx, view, params, state, ())
    first = jax.tree.map(lambda x: x[0], loop.inputs)
    with _naming(name):
        seen = jax.eval_shape(view, params)
        gradient = jax.eval_shape(loop.gradient, seen, first)
    _check_alike(
        f"{name}: the gradient", gradient, seen, "the parameters it is taken at",
        "Give one gradient for every parameter.",
    )  # fmt: skip
    _check_dtypes(f"{name}: the gradient", gradient, seen)
    with _naming(name):
        program, (_, updates, after) = jax.make_jaxpr(
            lambda: _update(side, loop, extra_args, params, state, first), return_shape=True
        )()
        constants = [*program.consts, *jax.make_jaxpr(tx.init)(params).consts]
    _check_alike(
        f"{name}: what `update` returns", updates, params, "the parameters",
        "Pass a transformation that updates every parameter.",
    )  # fmt: skip
    _check_dtypes(f"{name}: the updates", updates, params, wider=True)
    _check_alike(
        f"{name}: the state after an update", after, state, "the state before",
        "Pass a transformation that keeps its state's tree, as `lax.scan` needs.",
    )  # fmt: skip
    # As in a Python loop, where a state may change its dtype in the first step.
    state = jax.tree.map(
        lambda old, new: old if old.dtype == new.dtype else old.astype(new.dtype), state, after
    )
    return side._replace(state=state, notes=_notes(name, constants, params))


def _notes(name: str, constants: Sequence[Any], params: Params) -> tuple[str, ...]:
    """Say so if a transformation was made from arrays narrower than the parameters."""
    fewest = _fewest_bits(params)
    narrow = sorted({str(x.dtype) for x in constants if 0 < _bits(x.dtype) < fewest})
    if not narrow:
        return ()
    return (
        f"{name} uses {' and '.join(narrow)} arrays, which round the numbers that it was made from: "
        "pass Python numbers, or a function without arguments that makes it, or dtype=None",
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): jnp.shape(leaf) for path, leaf in leaves}


def _paths(tree: Any) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _check_alike(what: str, tree: Any, like: Any, reference: str, advice: str) -> None:
    """Require the same structure and shapes, or name the first path that differs."""
    given, needed = _shapes(tree), _shapes(like)
    for path in (*needed, *given):
        if path not in given:
            raise ValueError(
                f"{what} has nothing at {path!r}, where {reference} has an array. {advice}"
            )
        if path not in needed:
            raise ValueError(
                f"{what} has an array at {path!r}, where {reference} has none. {advice}"
            )
        if given[path] != needed[path]:
            raise ValueError(
                f"{what} has shape {given[path]} at {path!r}, and {reference} has {needed[path]}. "
                f"{advice}"
            )
    structures = jax.tree.structure(tree), jax.tree.structure(like)
    if structures[0] != structures[1]:
        raise ValueError(
            f"{what} is {structures[0]}, and {reference} is {structures[1]}: the same paths, in other "
            f"containers. {advice}"
        )


def _check_dtypes(what: str, tree: Any, params: Any, *, wider: bool = False) -> None:
    """Require the parameters' dtypes; or wider ones, which is how updates reach 16-bit parameters."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True)
    for path, (leaf, parameter) in zip(_paths(params), pairs, strict=True):
        kind = jnp.iscomplexobj(leaf) == jnp.iscomplexobj(parameter)
        holds = wider and kind and jnp.promote_types(leaf.dtype, parameter.dtype) == leaf.dtype
        if leaf.dtype != parameter.dtype and not holds:
            raise TypeError(
                f"{what} at {path!r}: the dtype is {leaf.dtype}, and the parameter there has "
                f"{parameter.dtype}. Cast to the parameter's dtype, or pass a `dtype` that fits."
            )


# The run


def _update(
    side: _Side, loop: _Loop, extra_args: Any, params: Params, state: Any, x: Any
) -> tuple[Updates, Updates, Any]:
    """The gradient where it is taken, the updates, and the new state."""
    seen, pull_back = jax.vjp(side.view, params)
    gradient = loop.gradient(seen, x)
    (pulled,) = pull_back(gradient)
    updates, state = side.tx.update(pulled, state, params, **extra_args(seen, x[0]))
    return gradient, updates, state


def _run(sides: tuple[_Side, _Side], loop: _Loop, extra_args: Any) -> _Measured:
    """Both sides, and each of them again with noise, in one program."""
    fewest = min(_fewest_bits(side.params) for side in sides)

    def advance(side: _Side, carry: Any, x: Any) -> Any:
        params, state = carry
        gradient, updates, state = _update(side, loop, extra_args, params, state, x)
        params = optax.apply_updates(params, updates)
        return (params, state), side.view(params), gradient

    def advance_all(side: _Side, carry: Any, x: Any) -> tuple[Any, Any, Any, Any, Any]:
        """The side, how far noise took it from itself, and whether all is finite."""
        exact, moved = carry
        exact, seen, gradient = advance(side, exact, x)

        def with_noise(draw: jax.Array, carry: Any) -> Any:
            carry, at, _ = _noisy(lambda c: advance(side, c, x), draw, fewest)(carry)
            return carry, _distances(at, seen)

        moved, spread = jax.vmap(with_noise)(jnp.arange(_DRAWS), moved)
        # A draw that overflows says nothing.
        spread = jnp.where(jnp.isfinite(spread), spread, 0).max(0)
        return (exact, moved), seen, spread, _all_finite(gradient), _all_finite(exact[0])

    def step(carries: Any, x: Any) -> tuple[Any, _Measured]:
        both = [advance_all(side, c, x) for side, c in zip(sides, carries, strict=True)]
        carries, (left, right), spreads, gradients, params = zip(*both, strict=True)
        return carries, _Measured(
            gap=_distances(left, right),
            spread=jnp.maximum(*spreads),
            size=_distances(left, jax.tree.map(jnp.zeros_like, left)),
            finite_gradient=gradients,
            finite_params=params,
        )

    @jax.jit
    def run(starts: Any, inputs: Any) -> _Measured:
        draws = jax.tree.map(lambda x: jnp.broadcast_to(x, (_DRAWS, *x.shape)), starts)
        return jax.lax.scan(step, tuple(zip(starts, draws, strict=True)), inputs)[1]

    starts = tuple((side.params, side.state) for side in sides)
    return jax.tree.map(np.asarray, run(starts, loop.inputs))


def _distances(tree: Any, other: Any) -> jax.Array:
    """The largest distance in every leaf."""

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return jnp.abs(x.astype(wide) - y.astype(wide)).max(initial=0).astype(float)

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return jnp.stack([distance(x, y) for x, y in pairs])


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


# Noise

_EXACT = (
    "abs", "bitcast_convert_type", "broadcast_in_dim", "ceil", "clamp", "complex", "concatenate",
    "conj", "copy", "copy_p", "cummax", "cummin", "dynamic_slice", "dynamic_update_slice",
    "expand_dims", "floor", "gather", "imag", "iota", "max", "min", "neg", "optimization_barrier",
    "pad", "real", "reduce_max", "reduce_min", "reduce_precision", "reshape", "rev", "round",
    "scatter", "select_n", "sign", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose",
)  # fmt: skip
"""Operations that give back numbers that they were given, or that do not round. What is not listed
is taken to round, loops included, whose results are moved as a whole."""
_CALLS = (
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit",
    "remat2",
)  # fmt: skip


def _noisy(f: Callable[[Any], Any], draw: jax.Array, fewest_bits: int) -> Callable[[Any], Any]:
    """`f` with the result of every operation that rounds moved by a few units in the last place."""
    number = itertools.count()
    salts = [draw ^ i for i in range(_DRAWS)]

    def move(x: jax.Array) -> jax.Array:
        if _bits(x.dtype) < fewest_bits:
            return x
        if jnp.iscomplexobj(x):
            return jax.lax.complex(move(x.real), move(x.imag))
        info = jnp.finfo(x.dtype)
        integer = jnp.dtype(f"uint{info.bits}")
        # As in rounding, the error follows from operation and digits: these are flipped, so that all
        # draws together take the last three digits through every value.
        flips = salts[next(number) % _DRAWS].astype(integer)
        flipped = jax.lax.bitcast_convert_type(x, integer) ^ flips
        short = jax.lax.reduce_precision(x, info.nexp, info.nmant // 2)
        return jnp.where(x == short, x, jax.lax.bitcast_convert_type(flipped, x.dtype))

    def evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            given = [x.val if isinstance(x, JaxprLiteral) else values[x] for x in equation.invars]
            results = apply(equation, given)
            values.update(zip(equation.outvars, results, strict=True))
        return [x.val if isinstance(x, JaxprLiteral) else values[x] for x in jaxpr.outvars]

    def apply(equation: Any, given: list[Any]) -> list[Any]:
        primitive, options = equation.primitive, equation.params
        if primitive.name in _CALLS:
            inner = options["call_jaxpr"] if "call_jaxpr" in options else options["jaxpr"]
            return evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        if primitive.name == "cond":
            branches = [
                lambda *x, b=branch: evaluate(b.jaxpr, b.consts, x)
                for branch in options["branches"]
            ]
            return jax.lax.switch(given[0], branches, *given[1:])
        results = primitive.bind(*given, **options)
        results = results if primitive.multiple_results else [results]
        exact = primitive.name in _EXACT
        if primitive.name == "convert_element_type":
            exact = not _bits(equation.outvars[0].aval.dtype) < _bits(equation.invars[0].aval.dtype)
        return results if exact else [move(x) for x in results]

    def noisy(argument: Any) -> Any:
        program, shape = jax.make_jaxpr(f, return_shape=True)(argument)
        results = evaluate(program.jaxpr, program.consts, jax.tree.leaves(argument))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return noisy


def _bits(dtype: Any) -> int:
    """Of a floating or complex number's part; 0 of anything else."""
    return jnp.finfo(dtype).bits if jnp.issubdtype(dtype, jnp.inexact) else 0


def _fewest_bits(params: Params) -> int:
    return min(_bits(leaf.dtype) for leaf in jax.tree.leaves(params))


# The report


def _check_finite(measured: _Measured, paths: list[str], paths_right: list[str]) -> None:
    """Name the first number that is not finite: in a step, its gradient comes before the update."""
    found = []
    for index, side in enumerate(("left", "right")):
        of_params = paths if side == "left" else paths_right
        for order, (finite, names) in enumerate(
            ((measured.finite_gradient[index], paths), (measured.finite_params[index], of_params))
        ):
            for step, leaf in np.argwhere(~finite)[:1]:
                found.append((step, order, side, names[leaf]))
    if not found:
        return
    step, order, side, path = min(found)
    if order == 0:
        raise ValueError(
            f"{side}: the gradient at {path!r} is not finite at step {step}, although the parameters "
            "are. Pass a problem, or recorded gradients, with finite gradients."
        )
    raise ValueError(
        f"{side}: the parameters at {path!r} are not finite after step {step}, although the gradient "
        "is. Pass a smaller learning rate, fewer steps, or another problem."
    )


def _floor(spread: np.ndarray, size: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """What rounding explains, step by step."""
    return np.maximum.accumulate(np.maximum(2 * spread, 8 * eps * size), axis=0)


def _report(
    measured: _Measured, theta: Params, paths: list[str], loop: _Loop, notes: tuple[str, ...]
) -> Comparison:
    gap, size = measured.gap, measured.size
    leaves = jax.tree.leaves(theta)
    eps = np.array([float(jnp.finfo(leaf.dtype).eps) for leaf in leaves])
    unit = eps * np.exp2(np.floor(np.log2(np.maximum(size.max(0), np.finfo(np.float32).tiny))))
    floor = _floor(measured.spread, size, eps)
    beyond = gap > floor
    first = {leaf: int(beyond[:, leaf].argmax()) for leaf in np.flatnonzero(beyond.any(0))}
    step = path = None
    at = np.unravel_index(gap.argmax(), gap.shape)
    if first:
        step = min(first.values())
        # Where a floor is 0 any gap is infinitely beyond it.
        factor = np.divide(
            gap[step], floor[step], out=np.full(len(paths), np.inf), where=floor[step] > 0
        )
        at = step, int(np.where(beyond[step], factor, -1).argmax())
        path = paths[at[1]]
    relative = 0.0
    if gap.any():
        relative = float(gap.max() / size.max()) if size.any() else np.inf
    return Comparison(
        verdict="difference" if first else "rounding" if gap.any() else "identical",
        deviation=float(gap.max()),
        relative=relative,
        ulps=float((gap.max(0) / unit).max()),
        step=step,
        path=path,
        gap=float(gap[at]),
        floor=float(floor[at]),
        parted=tuple((paths[i], t) for i, t in sorted(first.items(), key=lambda item: item[1])),
        steps=loop.steps,
        problem=loop.name,
        open_loop=loop.open_loop,
        dtype=" and ".join(sorted({str(leaf.dtype) for leaf in leaves})),
        notes=notes if first else (),
    )
