"""Whether events are what OpenLineage's own JSON schemas say: the event, and each facet by its `_schemaURL`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

_SPEC = Path(__file__).with_name("openlineage_spec")


@cache
def _registry() -> Registry[Any]:
    schemas = [json.loads(file.read_text()) for file in sorted(_SPEC.glob("*.json"))]
    return Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in schemas])


@cache
def _validator(reference: str) -> Draft202012Validator:
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator({"$ref": reference}, registry=_registry(), format_checker=checker)


def problems(event: dict[str, Any]) -> list[str]:
    """Return what is wrong with a run event; a facet of which no schema is kept here is an error of the test."""
    found = [_shown("event", one) for one in _validator(event["schemaURL"]).iter_errors(event)]
    facets = {"run": event["run"].get("facets", {}), "job": event["job"].get("facets", {})}
    for kind in ("inputs", "outputs"):
        for position, dataset in enumerate(event.get(kind, [])):
            for part in ("facets", "inputFacets", "outputFacets"):
                facets[f"{kind}[{position}].{part}"] = dataset.get(part, {})
    for place, named in facets.items():
        for name, facet in named.items():
            errors = _validator(facet["_schemaURL"]).iter_errors(facet)
            found += [_shown(f"{place}.{name}", one) for one in errors]
    return found


def _shown(place: str, error: Any) -> str:
    return f"{place} at {error.json_path}: {error.message}"
