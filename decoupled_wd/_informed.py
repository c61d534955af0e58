"""A chain whose members know what came in and what was made of it."""

from typing import Any

import jax
import optax

from decoupled_wd._typing import Params, Updates


def informed_chain(
    *transformations: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Chain transformations as `optax.chain` does, and tell each the gradient and the moments so far.

    $$u \leftarrow T_k(\dots T_2(T_1(g)))$$

    Gates and strengths that read the gradient of the loss (`gates.selective`) or second moments
    (`strengths.stable`) need it. What is told are two more extra arguments, `gradient` (the updates that
    came in, unless the caller passes another) and `moments` (the states with a field `nu` of the nearest
    transformation before that has any); others ignore them.

    Args:
        transformations: in the order of the chain.

    Returns:
        A transformation with the state that `optax.chain` has.

    Raises:
        TypeError: something else than transformations.
        ValueError: `state` is not that of as many transformations.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import decoupled_wd as dwd
        >>> chain = dwd.informed_chain(optax.scale(0.5), dwd.decoupled_weight_decay(0.25))
        >>> theta = jnp.array([4.0])
        >>> u, _ = chain.update(jnp.array([2.0]), chain.init(theta), theta)
        >>> print(u)
        [2.]
    """
    for member in transformations:
        if not isinstance(member, optax.GradientTransformation):
            raise TypeError(
                f"`transformations` has {member!r}, and each is to be an optax.GradientTransformation. "
                "Pass them one by one, as to `optax.chain`."
            )
    members = [optax.with_extra_args_support(member) for member in transformations]

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(member.init(params) for member in members)

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, tuple[Any, ...]]:
        told = {"gradient": updates, **extra_args}
        if len(state) != len(members):
            raise ValueError(
                f"`state` is that of {len(state)} transformations, and the chain has {len(members)}. "
                "Pass what `init` returned."
            )
        new_state = []
        for member, old in zip(members, state, strict=True):
            updates, new = member.update(updates, old, params, **told)
            found = tuple(_with_second_moments(new))
            told |= {"moments": found} if found else {}
            new_state.append(new)
        return updates, tuple(new_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _with_second_moments(state: Any) -> list[Any]:
    def found(node: Any) -> bool:
        return hasattr(node, "nu")

    return [node for node in jax.tree.leaves(state, is_leaf=found) if found(node)]
