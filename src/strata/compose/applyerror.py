"""How `strata-apply` says why it failed, inside of a container, and how the engine that runs the
container reads it from among buildah's own lines.

    strata-apply: the postprocess script at node/common.yaml:8 failed: no such luck
      | no such luck
      script: node/common.yaml:8
      hint: it ran with the tree as /, without network, as root
      code: definition
"""

from __future__ import annotations

from strata.compose.sandbox import ScriptError
from strata.core.errors import StrataError, error_of

_HEAD, _OUTPUT = "strata-apply: ", "  | "
_SCRIPT, _HINT, _CODE = "  script: ", "  hint: ", "  code: "


def error_text(error: StrataError) -> str:
    """The lines for an error; its code is the last."""
    lines = [_HEAD + " ".join(error.message.splitlines())]
    lines += [_OUTPUT + line for line in str(error.context.get("output", "")).splitlines()]
    if "script" in error.context:
        lines.append(f"{_SCRIPT}{error.context['script']}")
    if error.hint:
        lines.append(_HINT + " ".join(error.hint.splitlines()))
    return "\n".join([*lines, _CODE + error.code]) + "\n"


def read_error(output: str) -> StrataError | None:
    """The last error told in a process's output; None when there is none, or not its end.

    One with a script is a ScriptError.
    """
    lines = output.splitlines()
    ends = [number for number, line in enumerate(lines) if line.startswith(_CODE)]
    starts = [
        number
        for number, line in enumerate(lines[: ends[-1]] if ends else ())
        if line.startswith(_HEAD)
    ]
    if not starts:
        return None
    message = lines[starts[-1]].removeprefix(_HEAD)
    told = lines[starts[-1] + 1 : ends[-1]]
    context = {"output": "\n".join(_values(told, _OUTPUT))}
    hint = next(iter(_values(told, _HINT)), None)
    script = next(iter(_values(told, _SCRIPT)), None)
    if script is not None:
        return ScriptError(message, hint=hint, context={**context, "script": script})
    code = lines[ends[-1]].removeprefix(_CODE)
    return error_of({"code": code, "message": message, "hint": hint, "context": context})


def _values(lines: list[str], key: str) -> list[str]:
    return [line.removeprefix(key) for line in lines if line.startswith(key)]
