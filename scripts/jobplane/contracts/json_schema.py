"""JSON Schema of the contracts, without redundant keywords."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from jobplane.contracts.catalogue import Contract

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class PublishedSchema(GenerateJsonSchema):
    """Pydantic's generator, without titles of fields, nulls as defaults and discriminators.

    A discriminator is a keyword of OpenAPI and AsyncAPI only, and repeats what `const` says.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default", ...) is None:
            del described["default"]
        return described

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        described = super().tagged_union_schema(schema)
        described.pop("discriminator", None)
        return described


def document_of(contract: Contract) -> dict[str, Any]:
    head = {
        "$schema": DIALECT,
        "$id": f"urn:jobplane:{contract.name.replace('/', ':')}",
        "title": contract.title,
    }
    return head | TypeAdapter(contract.type).json_schema(schema_generator=PublishedSchema)


def definitions_of(contracts: Iterable[Contract], place: str) -> dict[str, Any]:
    """The schemas of several contracts and of types that they refer to, by title.

    `place` is their place in the document, such as `#/components/schemas`.
    """
    types = {contract.title: contract.type for contract in contracts}
    roots, shared = TypeAdapter.json_schemas(
        [(title, "validation", TypeAdapter(kind)) for title, kind in types.items()],
        ref_template=f"{place}/{{model}}",
        schema_generator=PublishedSchema,
    )
    definitions: dict[str, Any] = dict(shared.get("$defs", {}))
    for (title, _), schema in roots.items():
        if schema != {"$ref": f"{place}/{title}"}:
            definitions[title] = {"title": title} | schema
    return dict(sorted(definitions.items()))
