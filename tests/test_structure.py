"""What other code relies on: the tree of every state, who imports whom, and complete docstrings."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

import decoupled_wd as dwd
from decoupled_wd import _rate, plots
from tests.helpers import (
    as_arrays,
    parameters,
    public_options,
    public_transformations,
    run,
    small_params,
)

each = pytest.mark.parametrize("tx", public_transformations(), ids=str)
each_option = pytest.mark.parametrize("tx", public_options(), ids=str)

# States

ADAM = "ScaleByAdamState(count: int32, mu: params, nu: params)"
AMSGRAD = "ScaleByAmsgradState(count: int32, mu: params, nu: params, nu_max: params)"
LION = "ScaleByLionState(count: int32, mu: params)"
TRACE = "TraceState(trace: params)"
COUNTED_TRACE = "CountedTraceState(count: int32, trace: params)"
TIMES = "ScaleByScheduleState(count: int32)"
SIGN = "EmptyState()"
STOCHASTIC = "StochasticRoundingState(count: int32)"
COMPENSATED = "CompensatedRoundingState(residual: masked)"
L2 = "AddL2ToGradState(count: int32, weight_decay: float32)"
DECAY = "DecoupledWeightDecayState(count: int32, weight_decay: float32)"
PENALTY = "AddPenaltyToGradState(count: int32, weight_decay: float32)"
PROXIMAL = "ProximalWeightDecayState(count: int32, weight_decay: float32)"
LAZY = "LazyDecayState(count: int32, weight_decay: float32, pending: rows)"
AUTO_L2 = (
    "AutoL2State(count: int32, weight_decay: float32, drops: int32, dropped_at: int32, "
    "previous: float32, best: float32)"
)

PLACES = {
    "": f"({TIMES}, {DECAY}, {TIMES})",
    "-coupling-learning_rate": f"({DECAY}, {TIMES})",
    "-coupling-none": f"({TIMES}, {DECAY}, {SIGN})",
    "-coupling-corrected": f"({DECAY}, {TIMES})",
}
"""After the moments, by coupling: the decay at C, B, D, B."""


def remembering(**memory):
    named = ", ".join(f"{name}: {what}" for name, what in sorted(memory.items()))
    return f"DecayMemoryState(count: int32, weight_decay: float32, memory: {{{named}}})"


GOLDEN = {
    "add_l1_to_grad": PENALTY,
    "add_l1_to_grad-by-gradient": remembering(toward="params"),
    "add_l2_to_grad-of-the-whole": remembering(average="float32"),
    "add_elastic_net_to_grad": PENALTY,
    "proximal_weight_decay": PROXIMAL,
    "proximal_weight_decay-initial": remembering(toward="params"),
    "proximal_weight_decay-explicit": remembering(multiplier="numbers", bound="numbers"),
    "decoupled_weight_decay-initial": remembering(
        toward="params", tracked="numbers", norm="numbers"
    ),
    "decoupled_weight_decay-average": remembering(
        toward="params", multiplier="numbers", bound="numbers"
    ),
    "informed_decay": f"({ADAM}, {DECAY})",
    "keep_norm": "KeepNormState(norm: norms)",
    "scale_by_rotation": "RotationState(count: int32, norm: norms, square: norms)",
    "like_adamw": f"({ADAM}, {PLACES['-coupling-learning_rate']})",
    "add_l2_to_grad": L2,
    "decoupled_weight_decay": DECAY,
    "lazy_decay": LAZY,
    "add_auto_l2_to_grad": AUTO_L2,
    "cosine_warm_restarts": TIMES,
    "scale_by_adam": ADAM,
    "scale_by_amsgrad": AMSGRAD,
    "scale_by_schedule": TIMES,
    "to_float32": "EmptyState()",
    "with_rounding": f"(({TRACE}, {SIGN}))",
    "stochastic_rounding": STOCHASTIC,
    "compensated_rounding": COMPENSATED,
    "adam_l2": f"({L2}, {ADAM}, {TIMES})",
    "amsgrad_l2": f"({L2}, {AMSGRAD}, {TIMES})",
    "sgd_l2": f"({L2}, {TIMES}, {TRACE}, {SIGN})",
    "sgd_l2-learning_rate_in_buffer-False": f"({L2}, {TRACE}, {TIMES})",
    "sgdw": f"({TIMES}, {TRACE}, {DECAY}, {SIGN})",
    "sgdw-learning_rate_in_buffer-False": f"({TRACE}, {PLACES['']})",
    "sgdwr": f"({TIMES}, {TRACE}, {DECAY}, {SIGN})",
    "sgdwr-learning_rate_in_buffer-False": f"({TRACE}, {PLACES['']})",
    "extend_with_decoupled_weight_decay": f"(({TRACE}, {SIGN}), {DECAY})",
    **{f"adamw{coupling}": f"({ADAM}, {place})" for coupling, place in PLACES.items()},
    **{f"adamwr{coupling}": f"({ADAM}, {place})" for coupling, place in PLACES.items()},
    **{f"amsgradw{coupling}": f"({AMSGRAD}, {place})" for coupling, place in PLACES.items()},
    **{f"lionw{coupling}": f"({LION}, {place})" for coupling, place in PLACES.items()},
}
"""The tree of every state; an option that is not named has the tree of the plain one."""


SHAPES = {
    "params": lambda x: x,
    "rows": jax.vmap(jnp.sum),
    "norms": lambda x: jnp.sum(x, keepdims=True),
    "numbers": jnp.sum,
}
"""What a state may hold of every leaf."""


def describe(node, params):
    """Class names, field names and dtypes."""
    if isinstance(node, dict) and node.keys() == params.keys():
        return describe_tree(node, params)
    if isinstance(node, dict):
        named = ", ".join(f"{name}: {describe(x, params)}" for name, x in node.items())
        return f"{{{named}}}"
    if not isinstance(node, tuple):
        chex.assert_shape(node, ())
        return node.dtype.name
    if not hasattr(node, "_fields"):
        return f"({', '.join(describe(child, params) for child in node)})"
    fields = (f"{name}: {describe(value, params)}" for name, value in node._asdict().items())
    return f"{type(node).__name__}({', '.join(fields)})"


def describe_tree(tree, params):
    """What a state holds of every leaf, which is of the leaf's dtype."""
    if not jax.tree.leaves(tree):
        return "masked"
    leaves = [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]
    for name, made in SHAPES.items():
        like = jax.tree.leaves(jax.eval_shape(lambda f=made: jax.tree.map(f, params)))
        if leaves == [(x.shape, x.dtype) for x in like]:
            return name
    raise AssertionError(leaves)


ROUNDED = {"stochastic": STOCHASTIC, "compensated": COMPENSATED}


def expected_tree(tx):
    plain = GOLDEN.get(str(tx), GOLDEN[tx.function.__name__])
    rounding = tx.arguments.get("rounding")
    if rounding is None:
        return plain
    parts = plain if tx.takes("tx") else plain.replace(TRACE, COUNTED_TRACE)
    return f"({SIGN}, {parts[1:-1]}, {ROUNDED[rounding]})"


@each_option
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tree_of_every_state_is_pinned(tx, dtype):
    with jax.enable_x64(dtype == "float64"):
        params = small_params(dtype)
        state = jax.eval_shape(lambda: tx().init(params))
        # A number that is computed with is as wide as numbers are.
        expected = expected_tree(tx).replace("average: float32", f"average: {dtype}")
        assert describe(state, params) == expected


@each_option
def test_an_update_keeps_the_pinned_tree(tx):
    params, state = jax.eval_shape(lambda: run(tx(), small_params()))
    assert describe(state, params) == expected_tree(tx)


VALUES = {
    "learning_rate": [0.1, lambda step: 0.1 / (1 + step)],
    "weight_decay": [0.0, 1e-3, lambda step: 1e-3 / (1 + step)],
    "schedule": [None, 0.5, lambda step: 1 / (1 + step)],
    "mask": [
        None,
        {"bias": False, "kernel": True},
        {"bias": 0.0, "kernel": 2.0},
        dwd.masks.by_path({"bias": 0.0}),
        lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    ],
    "toward": [None, small_params()],
    "eps_root": [0.0, 1e-8],
    "warmup": [0, 1],
    "peak_decay": [1.0, 0.5],
}
"""What each argument may be without the state's tree taking notice."""


def accepts(tx, parameter, value):
    rate = parameter == "learning_rate" and callable(value)
    none = tx.function is dwd.scale_by_schedule and value is None
    return tx.takes(parameter) and not (rate and tx.takes("coupling")) and not none


CHANGES = [
    pytest.param(tx, parameter, value, id=f"{tx}-{parameter}-{index}")
    for tx in public_transformations()
    for parameter, values in VALUES.items()
    for index, value in enumerate(values)
    if accepts(tx, parameter, value) and not (tx.takes("tx") and parameter == "learning_rate")
]


def test_the_values_reach_most_transformations():
    assert len(CHANGES) > 100


@pytest.mark.parametrize(("tx", "parameter", "value"), CHANGES)
def test_the_tree_of_the_state_is_independent_of_values(tx, parameter, value):
    params = small_params()
    state = tx(**{parameter: value}).init(params)
    chex.assert_trees_all_equal_structs(state, tx().init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx().init(params))


@each_option
def test_traced_numbers_leave_the_state_as_it_is(tx):
    params = small_params()
    traced = jax.eval_shape(lambda numbers: tx(**numbers).init(params), as_arrays(tx.numbers))
    chex.assert_trees_all_equal_structs(traced, tx().init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(traced, tx().init(params))


@pytest.mark.parametrize("coupling", ["learning_rate", "none"])
@pytest.mark.parametrize("name", ["adamw", "amsgradw", "lionw", "sgdw"])
def test_a_scheduled_learning_rate_leaves_the_state_as_it_is(name, coupling):
    make, params = getattr(dwd, name), small_params()
    number, schedule = (
        make(rate, coupling=coupling).init(params) for rate in (0.1, lambda step: 0.1 / (1 + step))
    )
    chex.assert_trees_all_equal_structs(number, schedule)


# Imports

ROOT = Path(__file__).parents[1]
PACKAGE = Path(dwd.__file__).parent
FLOORS = [
    ["_typing", "_check", "_tree"],
    [
        "_moments", "_penalty", "_rounding", "gates", "strengths", "hyperparams", "schedules",
        *(f"conventions.{module}" for module in (
            "_record", "_paper", "_pytorch", "_torch_libraries", "_jax", "_tensorflow", "_catalogue",
            "_read", "_rule", "_convert",
        )),
        "conventions",
    ],
    [
        "masks", "_add_penalty", "_coupled", "_auto_l2", "_lazy", "_proximal", "_projection",
        "_decoupled", "_informed", "_precision", "_scaling", "_restarts",
    ],
    ["_rate", "_describe", "_alias", "_extend", "_directions", "_like", "_sharding"],
    [
        "equivalence._relation", "equivalence._problems", "equivalence._rows._chains",
        *(f"equivalence._rows.{theme}" for theme in (
            "adaptive", "axes", "batches", "closed_form", "momentum", "order", "penalties", "practice",
            "properties", "scale_invariant", "scaling", "shape", "sign",
        )),
        "equivalence._rows", "equivalence._catalogue", "equivalence._check", "equivalence._render",
        "equivalence._compare", "equivalence._fit", "equivalence", "diagnostics", "migrate", "sweep",
    ],
    ["plots", "_checkpoint", "__main__"],
]  # fmt: skip
"""Each module above what may import it, floor by floor, as the design lists them."""

ORDER = [module for floor in FLOORS for module in floor]
RUN_TIME = {"jax", "optax", "jaxtyping", "numpy"}  # numpy comes with jax


def modules():
    """Name in the package -> path, without the package's own `__init__`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            found[".".join(parts)] = path
    return dict(sorted(found.items()))


def imports(path):
    """The absolute names that a file imports, modules or names in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path):
    """The modules of this package that a file imports."""
    for name in imports(path):
        if name.startswith("decoupled_wd."):
            inside = name.removeprefix("decoupled_wd.")
            yield inside if inside in modules() else inside.rpartition(".")[0]


def test_every_module_has_its_floor():
    assert set(modules()) <= set(ORDER)
    assert len(modules()) >= 20


def test_contributing_lists_the_floors():
    rows = re.findall(r"^\| \d \| (.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    floors = [dict.fromkeys(module.partition(".")[0] for module in floor) for floor in FLOORS]
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [list(floor) for floor in floors]


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_below(module):
    below = set(ORDER[: ORDER.index(module)])
    assert set(imported_modules(modules()[module])) <= below


@pytest.mark.parametrize("module", ["", *modules()])
def test_the_package_needs_jax_and_optax_alone(module):
    path = modules().get(module, PACKAGE / "__init__.py")
    roots = {name.partition(".")[0] for name in imports(path)}
    extras = {"plots": {"matplotlib"}, "_checkpoint": {"flax", "orbax"}}.get(module, set())
    assert roots <= RUN_TIME | {"decoupled_wd"} | extras | set(sys.stdlib_module_names)


def test_the_package_holds_names_and_no_logic():
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    docstring, *statements = body
    assert isinstance(docstring, ast.Expr)
    imported = set()
    for statement in statements:
        assert isinstance(statement, (ast.ImportFrom, ast.Assign))
        if isinstance(statement, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in statement.names}
    assert imported == set(dwd.__all__)
    assert len(dwd.__all__) == len(set(dwd.__all__))


# Docstrings

MODULES = {name: getattr(dwd, name) for name in dwd.__all__ if inspect.ismodule(getattr(dwd, name))}
MODULES |= {"plots": plots}  # It needs matplotlib, which the package itself does not import.
PUBLIC = {name: getattr(dwd, name) for name in dwd.__all__} | {
    f"{module}.{name}": getattr(value, name)
    for module, value in MODULES.items()
    for name in value.__all__
    if name not in dwd.__all__
}
"""Every name that users may rely on, once."""
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_name = pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
SECTIONS = ("Args:", "Returns:", "Raises:", "Warns:", "Example:", "Source:")


def docstring(name):
    return inspect.getdoc(PUBLIC[name])


def section(name, title):
    """The indented text under a title."""
    match = re.search(rf"^{title}\n((?:    .*\n|\n)*)", docstring(name) + "\n", re.MULTILINE)
    return match and inspect.cleandoc(match[1])


def test_the_names_are_many():
    assert len(FUNCTIONS) > 90
    assert len(CLASSES) > 40


def example(name):
    """The code of a docstring."""
    return "".join(x.source for x in doctest.DocTestParser().get_examples(docstring(name)))


@each_name
def test_the_first_line_is_a_sentence(name):
    assert re.match(r"[A-Z].*\.$", docstring(name).split("\n")[0])


@each_name
def test_the_sections_come_in_order(name):
    titles = [
        title for title in re.findall(r"^([A-Z]\w+:)", docstring(name), re.MULTILINE)
        if title in SECTIONS
    ]  # fmt: skip
    assert titles == [title for title in SECTIONS if title in titles]
    assert "Returns:" in titles or name in CLASSES


@each_function
def test_every_argument_is_explained_in_order(name):
    explained = re.findall(r"^(\w+): ", section(name, "Args:") or "", re.MULTILINE)
    assert explained == list(inspect.signature(FUNCTIONS[name]).parameters)


def not_bound(code):
    """The names that some code reads and does not bind: it would not run where it is pasted."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    kinds = (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)
    bound |= {node.name for node in nodes if isinstance(node, kinds)}
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    bound |= {alias.asname or alias.name for node in imports for alias in node.names}
    return {node.id for node in names} - bound - set(dir(builtins))


@each_name
def test_the_example_is_executed_and_runs_where_it_is_pasted(name):
    assert ">>> " in section(name, "Example:")
    assert not not_bound(example(name))


@each_function
def test_errors_are_told(name):
    told = section(name, "Raises:")
    if not inspect.signature(FUNCTIONS[name]).parameters and not told:
        return  # Nothing is given that could be wrong.
    assert told
    assert re.search(r"^[A-Z]\w+Error\b.*: ", told)


def test_help_of_adamw_tells_the_four_units_and_what_a_mask_is():
    told = section("adamw", "Args:")
    assert all(f'"{coupling}"' in told for coupling in _rate.COUPLINGS)
    assert re.search(r"bools or multipliers.*prefix.*function", told, re.DOTALL)
    assert "peaks at 1" in told


@pytest.mark.parametrize("tx", [tx for tx in public_transformations() if tx.takes("coupling")])
def test_what_lambda_is_per_is_told_where_it_is_chosen(tx):
    told = re.search(r"^coupling: (.*\n?(?:    .*\n?)*)", section(str(tx), "Args:"), re.MULTILINE)
    assert re.search(r"\bper\b.*`adamw`|`\"corrected\"` per", told[1], re.DOTALL)


@each
def test_a_transformation_shows_its_formula_and_source(tx):
    text = docstring(str(tx))
    assert "$$" in text or re.search(r"^\|.*\$.*\|$", text, re.MULTILINE)
    assert "Source: " in text or str(tx) in ("scale_by_schedule", "informed_chain")


@pytest.mark.parametrize(
    "tx",
    [tx for tx in public_transformations() if "weight_decay" in parameters(getattr(dwd, str(tx)))],
    ids=str,
)
def test_the_unit_of_a_decay_is_told(tx):
    assert re.search(r"\bper\b|[Uu]nits? of lambda|in the unit that", docstring(str(tx)))


def shown():
    """The code that users read and copy, and where it stands."""
    for path in [*ROOT.glob("examples/*.py"), *ROOT.glob("notebooks/*.py")]:
        yield path.name, path.read_text()
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        yield path.name, "".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
    for name in [*FUNCTIONS, *CLASSES]:
        yield name, example(name)


def names_used(code):
    """The names that some code takes from this package, each with the module it takes it from."""
    tree, bound = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("decoupled_wd"):
            yield from ((importlib.import_module(node.module), alias.name) for alias in node.names)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "decoupled_wd" in ast.unparse(node):
            exec(ast.unparse(node), bound)
    for node in ast.walk(tree):
        owner = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"[\w.]+", owner) and owner.partition(".")[0] in bound:
            module = eval(owner, bound)
            if inspect.ismodule(module):
                yield module, node.attr


@pytest.mark.parametrize(("where", "code"), [pytest.param(*x, id=x[0]) for x in shown()])
def test_what_is_shown_uses_public_names_alone(where, code):
    for module, name in names_used(code):
        assert name in {*module.__all__, *MODULES}


@pytest.mark.parametrize("name", dwd.__all__)
def test_every_public_name_has_a_docstring_of_its_own(name):
    text = getattr(dwd, name).__doc__
    assert text
    assert not text.startswith(f"{name}(")  # what NamedTuple writes
