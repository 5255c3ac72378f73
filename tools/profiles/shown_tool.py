"""A tool as a profile shows it: other names and words over the same code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from tools.errors import ToolFailure
from tools.schema import Parameters, describe_errors
from tools.types import Observation, ToolContext, ToolSpec


def show(
    spec: ToolSpec,
    name: str,
    *,
    description: str = "",
    parameters: Mapping[str, str] | None = None,
    given: Callable[[ToolContext], Mapping[str, Any]] = lambda context: {},
    words: Mapping[str, str] | None = None,
) -> ToolSpec:
    """Return ``spec`` under another name.

    ``parameters`` maps the parameters that are shown to their shown names (all to their own, if
    None). ``given`` gives values for those that are not shown. ``words`` are the names that errors
    use, by ours.
    """
    shown = {field: field for field in spec.parameters.model_fields}
    shown = shown if parameters is None else dict(parameters)
    model = _rename_fields(spec.parameters, shown)

    def run(context: ToolContext, values: BaseModel) -> Observation:
        arguments = {
            ours: getattr(values, theirs)
            for ours, theirs in shown.items()
            if theirs in values.model_fields_set
        }
        return run_as(spec, context, {**given(context), **arguments}, {**shown, **(words or {})})

    return ToolSpec(
        name=name,
        description=description or spec.description,
        parameters=model,
        run=run,
        kind=spec.kind,
        subject=spec.subject or spec.name,
        max_characters=spec.max_characters,
    )


def run_as(
    spec: ToolSpec, context: ToolContext, arguments: Mapping[str, Any], words: Mapping[str, str]
) -> Observation:
    """Run ``spec`` and say its failures in the words of a profile. Raises ``ToolFailure``."""
    try:
        return spec.run(context, spec.parameters.model_validate(dict(arguments)))
    except ValidationError as error:
        failure = describe_errors(spec.name, spec.parameters, error)
        raise ToolFailure(_reword(failure, words)) from None
    except ToolFailure as error:
        # Only the first line is ours; what follows is a file's or a command's.
        first, *rest = str(error).split("\n", 1)
        raise ToolFailure("\n".join([_reword(first, words), *rest])) from None


def _reword(text: str, words: Mapping[str, str]) -> str:
    names = [name for name in words if words[name] != name]
    if not names:
        return text
    pattern = rf"\b(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})\b"
    return re.sub(pattern, lambda found: words[found[0]], text)


def _rename_fields(parameters: type[BaseModel], shown: Mapping[str, str]) -> type[Parameters]:
    fields: dict[str, Any] = {
        theirs: (parameters.model_fields[ours].annotation, parameters.model_fields[ours])
        for ours, theirs in shown.items()
    }
    return create_model("ShownParameters", __base__=Parameters, **fields)
