"""The description of the API is valid, complete, and says what the forms really take."""

import re

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tests.web.openapi import FILE, METHODS, Description, Json, walk
from tokenhub import __version__
from tokenhub.access import ROLES
from tokenhub.board.board import unix_ms
from tokenhub.budgets import BUDGET_MODES, PERIODS, SUBJECT_KINDS
from tokenhub.dialects.openai import read_request
from tokenhub.domain import CAPABILITIES, MODES, SCOPES
from tokenhub.errors import InvalidRequest
from tokenhub.keys import parse_expiry
from tokenhub.providers import ADAPTERS
from tokenhub.routing import SKIP_REASONS
from tokenhub.web import feedback, vault
from tokenhub.web.admin import (
    aliases,
    attention,
    breakers,
    budgets,
    keys,
    log_level,
    models,
    providers,
    routing,
    sessions,
    simulating,
    teams,
    tokens,
    trying,
    tsdb,
)

API = Description()
DOC = API.doc

FORMS = {
    "POST /admin/v1/providers": providers.FIELDS,
    "PATCH /admin/v1/providers/{id}": providers.PATCHABLE,
    "POST /admin/v1/models": models.FIELDS,
    "PATCH /admin/v1/models/{id}": models.PATCHABLE,
    "PUT /admin/v1/aliases/{id}": aliases.FIELDS,
    "PATCH /admin/v1/aliases/{id}": aliases.FIELDS,
    "POST /admin/v1/apikeys": keys.FIELDS,
    "PATCH /admin/v1/apikeys/{id}": keys.FIELDS,
    "POST /admin/v1/apikeys/{id}/rotate": keys.ROTATE_FIELDS,
    "POST /admin/v1/teams": teams.FIELDS,
    "PATCH /admin/v1/teams/{id}": teams.FIELDS,
    "PUT /admin/v1/budgets/{kind}/{id}/{period}": budgets.FIELDS,
    "POST /admin/v1/budgets/{kind}/{id}/paid": budgets.PAID_FIELDS,
    "POST /admin/v1/apikeys/{id}/paid": budgets.PAID_FIELDS,
    "POST /admin/v1/budgets/release": budgets.RELEASE_FIELDS,
    "PUT /admin/v1/log-level": log_level.FIELDS,
    "PUT /admin/v1/tsdb/retention": tsdb.RETENTION_FIELDS,
    "PUT /admin/v1/routing-config": routing.CONFIG_FIELDS,
    "POST /admin/v1/routing/simulate": simulating.FIELDS,
    "POST /admin/v1/attention/{id}/snooze": attention.SNOOZE_FIELDS,
    "POST /admin/v1/breakers/{id}/clear": breakers.CLEAR_FIELDS,
    "POST /admin/v1/breakers/{id}/cool": breakers.COOL_FIELDS,
    "POST /admin/v1/providers/{id}/probe": breakers.CLEAR_FIELDS,
    "POST /admin/v1/providers/test": trying.FIELDS,
    "POST /admin/v1/tokens": tokens.FIELDS,
    "POST /admin/v1/admin-token/rotate": tokens.ROTATE_FIELDS,
    "POST /admin/v1/session": sessions.FIELDS,
    "POST /admin/v1/vault/unlock": vault.UNLOCK_FIELDS,
    "POST /admin/v1/vault/rotate": vault.ROTATE_FIELDS,
    "PUT /admin/v1/vault/secrets/{id}": vault.SECRET_FIELDS,
    "POST /v1/feedback": feedback.FIELDS,
}
CHAT = "POST /v1/chat/completions"
BUDGET_WORDS = {"subject_kind": SUBJECT_KINDS, "period": PERIODS, "mode": BUDGET_MODES}

# Only what we use: a word that is not here is a slip of the pen.
TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "array", "items": TEXT}
ANY: Json = {}
TRUE: Json = {"const": True}


def strict(needed: str = "", /, **properties: object) -> Json:
    """An object of just these properties."""
    return {"type": "object", "properties": properties, "required": needed.split(),
            "additionalProperties": False}  # fmt: skip


def named(schema: object) -> Json:
    """An object that maps names to these, or to references."""
    return {"type": "object", "additionalProperties": {"anyOf": [REF, schema]}, "minProperties": 1}


REF = strict("$ref", **{"$ref": {"type": "string", "pattern": "^#/components/"}})
HEADER = strict("description schema", description=TEXT, required=TRUE, schema=ANY)
EXAMPLE = strict("value", summary=TEXT, value=ANY)
CONTENT = named(strict("schema", schema=ANY, examples=named(EXAMPLE)))
RESPONSE = strict(
    "description headers", description=TEXT, headers=named(HEADER), content=CONTENT
)  # fmt: skip
PARAMETER = strict(
    "name in schema", name=TEXT, **{"in": {"enum": ["path", "query", "header"]}},
    description=TEXT, required=TRUE, schema=ANY, style={"const": "form"},
    explode={"type": "boolean"},
)  # fmt: skip
SECURITY = {"type": "array", "items": {"type": "object", "additionalProperties": {"const": []}}}
OPERATION = strict(
    "tags operationId summary responses",
    tags=TEXTS, operationId={"type": "string", "pattern": "^[a-z][A-Za-z]+$"}, summary=TEXT,
    description=TEXT, security=SECURITY,
    parameters={"type": "array", "items": {"anyOf": [REF, PARAMETER]}},
    requestBody=strict("required content", required={"type": "boolean"}, content=CONTENT),
    responses={
        "type": "object", "additionalProperties": False, "minProperties": 2,
        "patternProperties": {"^([2-5][0-9][0-9]|4XX|default)$": {"anyOf": [REF, RESPONSE]}},
    },
)  # fmt: skip
SCHEME = strict(
    "type description", type={"enum": ["http", "apiKey"]}, scheme={"const": "bearer"}, name=TEXT,
    description=TEXT, **{"in": {"enum": ["header", "cookie"]}},
)  # fmt: skip
OPENAPI = strict(
    "openapi info servers tags security paths components",
    openapi={"const": "3.1.0"},
    info=strict("title version summary description", title=TEXT, version={"const": __version__},
                summary=TEXT, description=TEXT),
    servers={"const": [{"url": "/"}]},
    tags={"type": "array", "items": strict("name description", name=TEXT, description=TEXT)},
    security=SECURITY,
    paths={
        "type": "object", "additionalProperties": False,
        "patternProperties": {"^/": strict(**dict.fromkeys(METHODS, OPERATION))},
    },
    components=strict(
        "schemas", schemas=named(ANY), responses=named(RESPONSE), headers=named(HEADER),
        parameters=named(PARAMETER), securitySchemes=named(SCHEME),
    ),
)  # fmt: skip
KEYWORDS = {
    "$ref", "type", "enum", "const", "description", "default", "format", "pattern", "minLength",
    "maxLength", "minimum", "maximum", "items", "minItems", "maxItems", "properties", "required",
    "additionalProperties", "propertyNames", "maxProperties", "oneOf", "anyOf",
    "writeOnly", "contentMediaType", "multipleOf",
}  # fmt: skip


def schemas() -> list[Json]:
    """Those that stand on their own."""
    inline = [each["schema"] for each in walk(DOC) if isinstance(each.get("schema"), dict)]
    return [*DOC["components"]["schemas"].values(), *inline]


def test_the_document_has_the_shape_of_openapi():
    Draft202012Validator.check_schema(OPENAPI)
    errors = sorted(Draft202012Validator(OPENAPI).iter_errors(DOC), key=lambda e: len(e.path))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("schema", schemas())
def test_every_schema_is_valid_and_without_misspelt_words(schema):
    Draft202012Validator.check_schema(schema)
    pending = [schema]
    while pending:
        found = pending.pop()
        assert set(found) <= KEYWORDS
        pending += found.get("properties", {}).values()
        pending += [found[key] for key in ("items", "additionalProperties")
                    if isinstance(found.get(key), dict)]  # fmt: skip
        pending += [each for key in ("oneOf", "anyOf") for each in found.get(key, ())]


def test_a_schema_that_makes_no_sense_would_be_found():
    with pytest.raises(SchemaError):
        Draft202012Validator.check_schema({"type": "int"})


def test_references_lead_somewhere_and_no_component_is_left_over():
    used = {each["$ref"] for each in walk(DOC) if isinstance(each.get("$ref"), str)}
    for each in used:
        assert API.follow({"$ref": each})
    parts = DOC["components"]
    made = {f"#/components/{kind}/{name}" for kind in parts for name in parts[kind]}
    assert {each for each in made if "/securitySchemes/" not in each} == used


def test_operations_use_what_is_declared():
    operations = API.operations
    ids = [each["operationId"] for each in operations.values()]
    assert len(ids) == len(set(ids))
    tags = [each["name"] for each in DOC["tags"]]
    assert sorted(tags) == sorted({each["tags"][0] for each in operations.values()})
    schemes = {
        name
        for each in [*operations.values(), DOC]
        for choice in each.get("security", ())
        for name in choice
    }
    assert schemes == set(DOC["components"]["securitySchemes"])
    for name, operation in operations.items():
        found = [API.follow(each) for each in operation.get("parameters", ())]
        in_path = [each["name"] for each in found if each["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", name)
        assert all(each.get("required") for each in found if each["in"] == "path")


def test_every_route_is_described_and_nothing_else(app):
    def path_of(rule):
        found = re.sub("<(?!kind|period|path:request_id)[^>]+>", "{id}", str(rule)).replace(
            "path:", ""
        )
        return found.translate({ord("<"): "{", ord(">"): "}"})

    routes = {
        f"{method} {path_of(rule)}"
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("ui.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(API.operations) == routes


def test_the_document_is_served_to_anybody(client):
    response = client.get("/openapi.json")
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.data == FILE.read_bytes()


def test_words_of_closed_sets_are_all_there():
    parts = DOC["components"]["schemas"]
    assert parts["SkipReason"]["enum"] == list(SKIP_REASONS)
    assert parts["Capability"]["enum"] == list(CAPABILITIES)
    assert parts["RoutingConfig"]["properties"]["default_mode"]["enum"] == list(MODES)
    scopes = parts["ApiKeyFields"]["properties"]["scopes"]["oneOf"][0]["items"]["enum"]
    assert set(scopes) == SCOPES
    assert parts["AdminRole"]["enum"] == list(ROLES)
    found = {name: parts["Budget"]["properties"][name]["enum"] for name in BUDGET_WORDS}
    assert found == {name: list(words) for name, words in BUDGET_WORDS.items()}


def test_every_form_is_described_field_by_field():
    with_body = {name for name in API.operations if API.body_schema(name)}
    ours = {name for name in with_body if name in FORMS or not name.startswith("POST /v1/")}
    assert ours == set(FORMS)
    for name, form in FORMS.items():
        schema = API.body_schema(name)
        assert schema is not None
        assert set(schema["properties"]) == set(form), name
        assert schema["additionalProperties"] is False


def readers():
    """A case for each field of each form: its schema, and what reads it."""
    for name, form in FORMS.items():
        schema = API.body_schema(name)
        assert schema is not None
        for field, reader in form.items():
            yield pytest.param(schema, field, reader, id=f"{name} {field}")


def is_taken(field, value, reader):
    """Whether a field may have a value, by all who check it."""
    try:
        if field.startswith("expires_"):
            parse_expiry(**{"expires_in": None, "expires_at": None, field: value}, now_ms=unix_ms())
        found = reader(field, value)
    except InvalidRequest:
        return False
    return field != "type" or found in ("", *ADAPTERS)


def probes(schema):
    """Values of every type, and those around each bound."""
    yield from (None, True, False, 0, 1, 5, 10, 1.5, -1, 2**40, "", "a", "a\nb", " ", [], {}, [1])
    yield from (["chat"], ["x" * 201], [""], {"a": "b"}, {"a": 1}, {"": "b"}, "manual", "vault")
    yield from ("openai", "cheap", "turbo", "[]", "a/b", "http://127.0.0.1/v1", "x" * 10_000)
    for word in ("minimum", "maximum"):
        if word in schema:
            yield from (schema[word] - 1, schema[word], schema[word] + 1)
    for word in ("minLength", "maxLength"):
        if word in schema:
            yield from ("x" * max(schema[word] + more, 0) for more in (-1, 0, 1))
    if "maxItems" in schema:
        yield from ([str(i) for i in range(schema["maxItems"] + more)] for more in (0, 1))
    if "maxProperties" in schema:
        yield from ({str(i): "x" for i in range(schema["maxProperties"] + m)} for m in (0, 1))


# What a reader refuses and JSON Schema cannot say, or says less plainly.
ONLY_THE_READER_KNOWS = {"base_url", "endpoints", "expires_in", "expires_at", "scopes", "id",
                         "allowed_ips", "grace", "label"}  # fmt: skip


@pytest.mark.parametrize(("body", "field", "reader"), list(readers()))
def test_a_field_takes_what_its_schema_says(body, field, reader):
    schema = body["properties"][field]
    check = API.validator(schema)
    must_be_given = field in body["required"]
    for value in probes(schema):
        is_described = check.is_valid(value)
        taken = is_taken(field, value, reader) and not (must_be_given and value in (None, ""))
        assert is_described or not taken, value
        assert taken or not is_described or field in ONLY_THE_READER_KNOWS, value


@pytest.mark.parametrize(
    "field", ["model", "messages", "stream", "stream_options", "n", "max_tokens",
              "max_completion_tokens", "whatever"],
)  # fmt: skip
def test_a_chat_request_takes_what_its_schema_says(field):
    schema = API.body_schema(CHAT)
    assert schema is not None
    check = API.validator(schema)
    shape = schema["properties"].get(field, {})
    messages: tuple[list[Json], ...] = (
        [{}],
        [{"role": "king"}],
        [{"role": "user", "content": 1}],
        [{"role": "tool"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "x", "y": 1}],
    )
    for value in (*probes(shape), *messages):
        body = {"messages": [{"role": "user", "content": "Hello"}], field: value}
        try:
            read_request(orjson.dumps(body))
        except InvalidRequest:
            assert not check.is_valid(body), value
        else:
            assert check.is_valid(body), value
