"""Providers, models with their prices, and routing defaults, as rows.

A change here is seen by workers only with `record_change` in the same transaction.
"""

from __future__ import annotations

from dataclasses import replace

import orjson
from sqlalchemy import Connection, RowMapping, delete, insert, select

from tokenhub.db.catalog_tables import models, price_versions, providers, routing_config
from tokenhub.domain import Model, Price, Provider, RoutingDefaults
from tokenhub.store.drains import delete_drain
from tokenhub.store.statements import ONLY_ROW, page_of, upsert, upsert_revised

PRICES = (
    "input_per_mtok", "output_per_mtok", "cache_read_per_mtok", "cache_write_per_mtok",
)  # fmt: skip


def find_provider(connection: Connection, provider_id: str) -> Provider | None:
    """A provider by id."""
    query = select(providers).where(providers.c.id == provider_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else provider_from(row)


def list_providers(connection: Connection, limit: int, offset: int) -> tuple[list[Provider], int]:
    """A page of the providers, oldest first, and how many there are."""
    query = select(providers).order_by(providers.c.created_at, providers.c.id)
    rows, total = page_of(connection, query, limit, offset)
    return [provider_from(row) for row in rows], total


def load_providers(connection: Connection) -> dict[str, Provider]:
    """All providers by id, in the order of `list_providers`."""
    query = select(providers).order_by(providers.c.created_at, providers.c.id)
    return {row["id"]: provider_from(row) for row in connection.execute(query).mappings()}


def save_provider(connection: Connection, provider: Provider, at: int) -> Provider:
    """Create or replace a provider; returns it with its new revision."""
    values = {
        "id": provider.id,
        "type": provider.type,
        "base_url": provider.base_url,
        "enabled": provider.enabled,
        "cred_store": provider.cred_store,
        "demo": provider.demo,
        "endpoints": orjson.dumps(provider.endpoints).decode(),
        "native_responses": provider.native_responses,
    }
    return replace(provider, revision=upsert_revised(connection, providers, values, at))


def delete_provider(connection: Connection, provider_id: str) -> bool:
    """Delete a provider and its models; False if there was none."""
    delete_drain(connection, ("provider", provider_id))
    for model_id in connection.scalars(
        select(models.c.id).where(models.c.provider_id == provider_id)
    ).all():
        delete_drain(connection, ("model", model_id))
    return connection.execute(delete(providers).where(providers.c.id == provider_id)).rowcount > 0


def find_model(connection: Connection, model_id: str) -> Model | None:
    """A model by id."""
    query = select(models).where(models.c.id == model_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else model_from(row)


def list_models(connection: Connection, limit: int, offset: int) -> tuple[list[Model], int]:
    """A page of the models by id, and how many there are."""
    rows, total = page_of(connection, select(models).order_by(models.c.id), limit, offset)
    return [model_from(row) for row in rows], total


def load_models(connection: Connection) -> dict[str, Model]:
    """All models by id, sorted."""
    query = select(models).order_by(models.c.id)
    return {row["id"]: model_from(row) for row in connection.execute(query).mappings()}


def save_model(connection: Connection, model: Model, at: int) -> Model:
    """Create or replace a model; returns it with its new revision and price version.

    A model's first price, and any that differs from the stored one, gets a version of its own:
    what a request cost can be explained for as long as its log row lives.

    Raises:
        sqlalchemy.exc.IntegrityError: there is no such provider.
    """
    stored = find_model(connection, model.id)
    price = replace(model.price, version=stored.price.version if stored else 0)
    if stored is None or stored.price != price:
        price = replace(price, version=_insert_price(connection, model, at))
    values = {
        "id": model.id,
        "provider_id": model.provider_id,
        "upstream_model": model.upstream_model,
        "weight": model.weight,
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
        **_prices_of(price),
        "price_version": price.version,
        "enabled": model.enabled,
        "pricing_source": model.pricing_source,
        "pricing_origin": model.pricing_origin,
        "capabilities": orjson.dumps(model.capabilities).decode(),
        "tags": orjson.dumps(model.tags).decode(),
        "fallbacks": orjson.dumps(model.fallbacks).decode(),
        "tool_name_map": orjson.dumps(dict(model.tool_name_map)).decode(),
        "gemma4_output": model.gemma4_output,
    }
    revision = upsert_revised(connection, models, values, at)
    created_at = stored.created_at if stored else at
    return replace(model, price=price, created_at=created_at, revision=revision)


def delete_model(connection: Connection, model_id: str) -> bool:
    """Delete a model, but not its price versions; False if there was none."""
    delete_drain(connection, ("model", model_id))
    return connection.execute(delete(models).where(models.c.id == model_id)).rowcount > 0


def find_routing(connection: Connection) -> RoutingDefaults | None:
    """The saved routing defaults; None while those of the settings apply."""
    row = connection.execute(select(routing_config)).mappings().one_or_none()
    if row is None:
        return None
    return RoutingDefaults(
        mode=row["default_mode"],
        max_budget_nanousd=row["default_max_budget_nanousd"],
        max_latency_ms=row["default_max_latency_ms"],
    )


def save_routing(connection: Connection, routing: RoutingDefaults, at: int) -> None:
    """Save the routing defaults."""
    values = {
        "default_mode": routing.mode,
        "default_max_budget_nanousd": routing.max_budget_nanousd,
        "default_max_latency_ms": routing.max_latency_ms,
        "updated_at": at,
    }
    upsert(connection, routing_config, {"id": ONLY_ROW}, values)


def provider_from(row: RowMapping) -> Provider:
    """A provider from its row."""
    return Provider(
        id=row["id"],
        type=row["type"],
        base_url=row["base_url"],
        enabled=row["enabled"],
        cred_store=row["cred_store"],
        demo=row["demo"],
        endpoints=tuple(orjson.loads(row["endpoints"])),
        native_responses=row["native_responses"],
        revision=row["revision"],
    )


def model_from(row: RowMapping) -> Model:
    """A model from its row."""
    return Model(
        id=row["id"],
        provider_id=row["provider_id"],
        upstream_model=row["upstream_model"],
        weight=row["weight"],
        max_context_tokens=row["max_context_tokens"],
        max_output_tokens=row["max_output_tokens"],
        price=Price(**{name: row[name] for name in PRICES}, version=row["price_version"]),
        enabled=row["enabled"],
        pricing_source=row["pricing_source"],
        pricing_origin=row["pricing_origin"],
        capabilities=tuple(orjson.loads(row["capabilities"])),
        tags=tuple(orjson.loads(row["tags"])),
        fallbacks=tuple(orjson.loads(row["fallbacks"])),
        tool_name_map=orjson.loads(row["tool_name_map"]),
        gemma4_output=row["gemma4_output"],
        created_at=row["created_at"],
        revision=row["revision"],
    )


def _prices_of(price: Price) -> dict[str, int | None]:
    return {name: getattr(price, name) for name in PRICES}


def _insert_price(connection: Connection, model: Model, at: int) -> int:
    statement = insert(price_versions).values(
        model_id=model.id,
        **_prices_of(model.price),
        source=model.pricing_source,
        effective_at=at,
    )
    version: int = connection.execute(statement.returning(price_versions.c.version)).scalar_one()
    return version
