"""Which commands a shell script calls, and in which line.

A reading that is good enough to find what is missing on a machine: words in the place of a command,
also in substitutions, through `exec`, `sudo`, `timeout` and their like; not what variables and
`eval` make. Never fails: text that is no script has fewer commands. Linear in the text's length but
for substitutions, which are read once for each that they are in, at most MAX_DEPTH deep.
Source: POSIX.1-2017, Shell Command Language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strata.bootimage.ignition.shelllex import Lexer, Token

MAX_DEPTH = 16
SHELLS = ("sh", "bash", "dash", "ksh")
# What runs the rest of its words: options that take a value, and operands before the command.
WRAPPERS = {
    "exec": ("a", 0),
    "command": ("", 0),
    "builtin": ("", 0),
    "sudo": ("CghpRrTtUu", 0),
    "env": ("uC", 0),
    "nohup": ("", 0),
    "nice": ("n", 0),
    "ionice": ("cnp", 0),
    "setsid": ("", 0),
    "stdbuf": ("eio", 0),
    "timeout": ("ks", 1),
    "flock": ("Ew", 1),
    "xargs": ("adEIiLnPs", 0),
}
_BEFORE_A_COMMAND = {"if", "then", "elif", "else", "do", "while", "until", "!", "{", "}", "time"}
_BEFORE_A_COMMAND |= {"fi", "done", "]]"}
_PATTERNS_END = (")", "esac")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[[^\]]*\])?\+?=")
_COMMAND = re.compile(r"/?[A-Za-z_][A-Za-z0-9_.+/-]*")


@dataclass(frozen=True)
class Call:
    """A command that is called. words: its name and arguments, quotes removed; line: from 1."""

    words: tuple[str, ...]
    line: int


def calls(script: str) -> list[Call]:
    """The commands a script calls, by line. Of its own functions those that they are given: they
    may run them (`retry oc get nodes`)."""
    found: list[Call] = []
    functions: set[str] = set()
    _Reader(found, functions).read(script, 1)
    found.sort(key=lambda call: call.line)
    return [one for call in found for one in _of_functions(call, functions)]


def _of_functions(call: Call, functions: set[str]) -> Iterator[Call]:
    if call.words[0] not in functions:
        yield call
        return
    for number, word in enumerate(call.words):
        if word not in functions and _COMMAND.fullmatch(word):
            yield Call(call.words[number:], call.line)


def unwrapped(words: Sequence[str]) -> tuple[str, ...]:
    """The words of what is really run: assignments and wrappers taken away."""
    left = list(words)
    while left:
        name = left[0].rpartition("/")[2]
        if _ASSIGNMENT.match(left[0]):
            left = left[1:]
        elif name == "command" and left[1:2] in (["-v"], ["-V"]):
            return ()  # it looks whether a command is there
        elif name in WRAPPERS:
            left = _after(left[1:], *WRAPPERS[name])
        else:
            break
    return tuple(left)


def _after(words: list[str], with_value: str, operands: int) -> list[str]:
    left = list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option == "--":
            break
        if len(option) == 2 and option[1] in with_value:
            left = left[1:]
    return left[operands:]


class _Reader:
    """Finds the places of commands among words and operators."""

    def __init__(self, found: list[Call], functions: set[str], depth: int = 0) -> None:
        self.found, self.functions, self.depth = found, functions, depth
        self.words: list[Token] = []

    def read(self, text: str, line: int) -> None:
        """Add the calls of a text that begins in a line."""
        if self.depth > MAX_DEPTH:
            return
        tokens = Lexer(text, line, self.inner).tokens()
        cases = 0
        until: tuple[str, ...] = ()  # words are none of a command before one of these
        for token in tokens:
            if until:
                if token.text not in until:
                    continue
                until = ()
                if token.text == "in":
                    until = _PATTERNS_END
                    continue
            if token.operator:
                if token.text == "(" and self.words:
                    self.functions.add(self.words.pop().text)  # NAME () {
                self._end()
                if cases and token.text in (";;", ";&"):
                    until = _PATTERNS_END
            elif self.words:
                self.words.append(token)
            elif token.text in ("for", "select"):
                until = ("do", ";", "\n")
            elif token.text == "case":
                cases += 1
                until = ("in",)
            elif token.text == "esac":
                cases = max(0, cases - 1)
            elif token.text == "[[":
                until = ("]]",)
            elif token.text == "function":
                self.functions.add(next(tokens, token).text)
            elif token.text not in _BEFORE_A_COMMAND:
                self.words.append(token)
        self._end()

    def inner(self, text: str, line: int) -> None:
        """Add the calls of a substitution."""
        _Reader(self.found, self.functions, self.depth + 1).read(text, line)

    def _end(self) -> None:
        plain = unwrapped([token.text for token in self.words])
        if plain:
            self.found.append(Call(plain, self.words[0].line))
        self.words.clear()
