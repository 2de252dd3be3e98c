"""Whom a request means by the names in it: a model, an alias, nobody in particular; and who else.

Names are looked up in the Snapshot as the caller's key sees it. Who of them can serve the request
is `routing`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tokenhub.aliases import WILDCARD, others_of
from tokenhub.catalog import Snapshot
from tokenhub.domain import Alias, ChatRequest, Model, Policy
from tokenhub.errors import NotFound, PermissionDenied

NAME_CHARS = 200
"""How much of a caller's own name an error repeats."""


_NOBODY: Mapping[str, str] = MappingProxyType({})


class Wish(NamedTuple):
    """Who shall answer.

    Args:
        named: the model that is named by its own id or behind a prefix.
        listed: who come next, in order: the models of an alias, the heaviest first; fallbacks.
        alias: chooses who of its models goes first.
        is_closed: nobody else may answer, not even as a last resort.
        brought_by: the alias by whose name a fallback came in, by its id: its limits hold too.
    """

    named: str | None = None
    listed: tuple[str, ...] = ()
    alias: Alias | None = None
    is_closed: bool = False
    brought_by: Mapping[str, str] = _NOBODY


ANYBODY = Wish()


def find_wish(snapshot: Snapshot, request: ChatRequest, policy: Policy, unknown_model: str) -> Wish:
    """Whom a request names, and who may answer instead.

    The request's own fallbacks come before those that the operator gave to a model. Either kind
    is all there is: without any, everybody else follows.

    Args:
        unknown_model: "404", or "route": a name that nobody knows leaves the choice to us.

    Raises:
        NotFound: it names what we do not know.
        PermissionDenied: it names what the key may not use.
    """
    wish = _first_wish(snapshot, request, unknown_model)
    if policy.fallbacks is not None:
        if not policy.fallbacks and wish is ANYBODY:
            return wish  # nobody is named whom nobody could replace
        is_strict = unknown_model == "404"
        return _with_more(wish, snapshot, policy.fallbacks, is_strict=is_strict)
    if wish.is_closed:
        return wish
    return _with_own_fallbacks(snapshot, wish)


def considered(snapshot: Snapshot, wish: Wish) -> Sequence[Model]:
    """The models that may be asked at all, sorted by id but for those that only an alias opens."""
    models: Sequence[Model] = snapshot.routable
    if wish.is_closed:
        ids = {wish.named, *wish.listed}
        models = [model for model in models if model.id in ids]
    if snapshot.allowed is None or not wish.listed:
        return models
    opened = [id_ for id_ in dict.fromkeys(wish.listed) if id_ not in snapshot.allowed]
    return [*models, *(snapshot.models[id_] for id_ in opened if snapshot.can_route(id_))]


def resolve_name(name: str, models: Mapping[str, Model]) -> str | None:
    """Find the model that a caller's name means: an id, or `prefix/id`; None = unknown.

    The exact id wins. (The original strips the prefix even from a name that is itself an id, and
    so may go to another provider: weak spot W70.)
    """
    if name in models:
        return name
    prefix, _, rest = name.partition("/")
    return rest if prefix and rest in models else None


def _first_wish(snapshot: Snapshot, request: ChatRequest, unknown_model: str) -> Wish:
    name = request.model
    if name in ("", WILDCARD):
        return _pooled(snapshot, is_for_vectors=request.dialect == "embeddings")
    try:
        return _find(snapshot, name, "model")
    except NotFound:
        if unknown_model == "404":
            raise
        return ANYBODY


def _pooled(snapshot: Snapshot, *, is_for_vectors: bool) -> Wish:
    """One of the pool, and nobody from outside of it; with nobody in it, anybody (reference
    §8.4). A pool of models that converse says nothing of who embeds."""
    pool = snapshot.pool
    if pool is None:
        return ANYBODY
    ids = [each.model_id for each in pool.variants if snapshot.can_route(each.model_id)]
    if is_for_vectors:
        ids = [id_ for id_ in ids if "embeddings" in snapshot.models[id_].capabilities]
    if not ids:
        return ANYBODY
    return Wish(listed=_by_weight(pool), alias=pool, is_closed=True)


def _find(snapshot: Snapshot, name: str, param: str) -> Wish:
    """An alias before a model, as in the original; that both have a name is refused where names
    are given."""
    alias = snapshot.aliases.get(name)
    if alias is not None and alias.enabled:
        if not alias.variants:
            raise _denied(name, param)
        return Wish(listed=_by_weight(alias), alias=alias)
    named = resolve_name(name, snapshot.models)
    if named is None:
        raise NotFound(
            f"the model {name[:NAME_CHARS]!r} does not exist", code="model_not_found", param=param
        )
    if snapshot.allowed is not None and named not in snapshot.allowed:
        raise _denied(named, param)
    return Wish(named)


def _with_own_fallbacks(snapshot: Snapshot, wish: Wish) -> Wish:
    """The wish with what the operator says of the models that it names."""
    ids = wish.listed if wish.named is None else (wish.named,)
    own = [name for id_ in ids if id_ in snapshot.models for name in snapshot.models[id_].fallbacks]
    if not own:
        return wish
    return _with_more(wish, snapshot, own, is_strict=False)


def _with_more(wish: Wish, snapshot: Snapshot, names: Iterable[str], *, is_strict: bool) -> Wish:
    """The wish with the models that fallbacks mean, and nobody else; of an alias all of its own,
    for no choice is made of them.

    Args:
        is_strict: refuse what is unknown or not allowed, instead of passing over it.
    """
    listed, brought_by = [*wish.listed], {}
    for name in names:
        try:
            found = _find(snapshot, name, "fallbacks")
        except (NotFound, PermissionDenied):
            if is_strict:
                raise
            continue
        listed += found.listed if found.named is None else (found.named,)
        if found.alias is not None:
            brought_by.update(dict.fromkeys(found.listed, found.alias.name))
    return wish._replace(listed=tuple(listed), is_closed=True, brought_by=brought_by)


def _by_weight(alias: Alias) -> tuple[str, ...]:
    return tuple(others_of(alias.variants, ""))


def _denied(name: str, param: str) -> PermissionDenied:
    return PermissionDenied(
        f"the API key may not use the model {name[:NAME_CHARS]!r}",
        code="model_not_allowed",
        param=param,
    )
