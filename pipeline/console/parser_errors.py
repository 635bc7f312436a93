"""Rewords the errors of the command-line parser as single sentences that say what would be right.

Typer does not export the classes of these errors, so they are recognised by name.
"""

from __future__ import annotations

import re
from typing import Any

from hnas.errors import did_you_mean, unknown

_LONGEST_VALUE = 60


def is_parser_error(error: Exception) -> bool:
    """Return whether the parser rejected the command line."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def parser_sentence(error: Any) -> str:
    """Return a parser error as one sentence."""
    context = getattr(error, "ctx", None)
    kind = type(error).__name__
    message = _plain(error.message)
    if kind == "NoArgsIsHelpError" or message == "missing command":
        return f"a command is missing; choose from {', '.join(_commands(context))}"
    if kind == "NoSuchOption":
        return _no_such_option(error.option_name, context)
    if kind == "MissingParameter":
        return f"{_command(context)} needs {_described(error.param)}"
    if kind == "BadParameter" and error.param is not None:
        return _bad_value(_name(error.param), message, _value(error))
    if match := re.fullmatch(r"no such command (['\"])(.*?)\1(?:\. Did you mean .*)?", message):
        names = _commands(context)
        return f"unknown command {match[2]!r}; choose from {', '.join(names)}{did_you_mean(match[2], names)}"
    if match := re.fullmatch(r"got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        extra = _cut(match[1])
        return f"{_command(context)} takes no further argument, got {extra!r}; quote arguments that contain spaces"
    if match := re.fullmatch(r"option '(\S+)' requires an argument", message):
        return f"{match[1]} needs a value after it"
    if match := re.fullmatch(r"option '(\S+)' does not take a value", message):
        return f"{match[1]} takes no value; write it alone"
    return message


def _no_such_option(option: str, context: Any) -> str:
    if context.command.name == "sql" and any(map(str.isspace, option)):
        return f'the query begins with a comment, which looks like an option; write `{context.command_path} -- "…"`'
    options = [name for param in context.command.params for name in param.opts if name.startswith("-")]
    options += context.help_option_names
    hint = did_you_mean(option, options)
    owners = [
        name
        for name, command in getattr(context.command, "commands", {}).items()
        if any(option in param.opts for param in command.params)
    ]
    if owners and not hint:
        hint = f"; it belongs after a command, as in `hnas {owners[-1]} {option}`"
    elif not hint:
        hint = f"; `{context.command_path} --help` lists its options"
    return f"{_command(context)} has no option {option}{hint}"


def _bad_value(name: str, message: str, value: str | None) -> str:
    if match := re.search(r"'(.*)' is not one of (.*)", message, re.DOTALL):
        choices = re.findall(r"'([^']*)'", match[2])
        return str(unknown(name, _cut(match[1]), choices))
    if value is None and (match := re.match(r"'(.*)' is not a valid ", message, re.DOTALL)):
        value = match[1]
    expected = "a whole number" if "integer" in message else "a number" if re.search("number|float", message) else None
    if value is None or expected is None:
        return f"{name}: {message}"
    return f"{name} takes {expected}, not {_cut(value)!r}"


def _value(error: Any) -> str | None:
    """Return the rejected value, if the parser reports it."""
    reasons: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    value = reasons[0].get("input") if reasons else None
    return value if isinstance(value, str) else None


def _described(param: Any) -> str:
    """Return `SPACE: a search space, such as nasbench201` from a parameter's help."""
    described = _plain(getattr(param, "help", None) or "")
    return f"{_name(param)}: {described}" if described else _name(param)


def _name(param: Any) -> str:
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name).strip("[]{}").upper()


def _command(context: Any) -> str:
    return f"`{context.command_path}`"


def _commands(context: Any) -> list[str]:
    return list(context.find_root().command.commands)


def _plain(message: str) -> str:
    """Return the first line, beginning in lower case and without its full stop."""
    line = (message.strip().splitlines() or [""])[0].removeprefix("Value error, ").rstrip(".")
    return line if line[1:2].isupper() else line[:1].lower() + line[1:]


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"
