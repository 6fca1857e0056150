"""Words and operators of a shell script, quotes removed.

Source: POSIX.1-2017, Shell Command Language, 2.2 to 2.7; `[[`, `<(…)` and `&>` are bash's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_BRACKETS = 16
_HEREDOC = re.compile(r"<<(-?)[ \t]*(['\"]?)([A-Za-z0-9_]+)\2")
_OPERATORS = ("&&", "||", ";;", ";&", "|&", ";", "&", "|", "(", ")", "\n")


@dataclass(frozen=True)
class Token:
    """A word, or an operator. line: where it begins, from 1."""

    text: str
    line: int
    operator: bool = False


class Lexer:
    """Words and operators of a text; what is in substitutions is read at once."""

    def __init__(self, text: str, line: int, inner: Callable[[str, int], None]) -> None:
        self.text, self.line, self.at, self.inner = text, line, 0, inner
        self.heredocs: list[re.Match[str]] = []
        self.brackets = 0

    def tokens(self) -> Iterator[Token]:
        """All of them."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\r" or self.text.startswith("\\\n", self.at):
                self._skip(2 if char == "\\" else 1)
            elif char == "#":
                self._skip(self._to("\n"))
            elif char in "<>" or self.text.startswith("&>", self.at):
                self._redirection()
            else:
                operator = next((x for x in _OPERATORS if self.text.startswith(x, self.at)), "")
                if operator:
                    yield Token(operator, self.line, operator=True)
                    self._skip(len(operator))
                    if operator == "\n":
                        self._skip_heredocs()
                else:
                    line = self.line
                    yield Token(self._word(), line)

    def _skip(self, count: int) -> str:
        piece = self.text[self.at : self.at + count]
        self.line += piece.count("\n")
        self.at += count
        return piece

    def _to(self, end: str) -> int:
        """How many characters there are before the next `end`, or the text's."""
        place = self.text.find(end, self.at)
        return (len(self.text) if place < 0 else place) - self.at

    def _redirection(self) -> None:
        heredoc = _HEREDOC.match(self.text, self.at)
        if heredoc and not self.text.startswith("<<<", self.at):
            self.heredocs.append(heredoc)
            self._skip(len(heredoc[0]))
            return
        process = self.text.startswith(("<(", ">("), self.at)
        while self.at < len(self.text) and self.text[self.at] in "<>&|":
            self._skip(1)
        if process:
            self._substitution()
            return
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self._skip(1)
        if self.at < len(self.text) and self.text[self.at] not in "\n;()":
            self._word()

    def _skip_heredocs(self) -> None:
        for heredoc in self.heredocs:
            begin, line, body = self.line, "", ""
            while self.at < len(self.text):
                line = self._skip(self._to("\n") + 1)
                if (line.lstrip("\t") if heredoc[1] else line).rstrip("\n") == heredoc[3]:
                    break
                body += line
            if not heredoc[2]:  # its delimiter is not quoted: substitutions are made
                self.inner(': "' + body.replace('"', '\\"') + '"', begin)
        self.heredocs.clear()

    def _word(self) -> str:
        """One word, quotes removed; a substitution in it becomes `$`."""
        parts: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\r\n;&|<>()":
                break
            if char == "\\":
                parts.append(self._skip(2)[1:].replace("\n", ""))
            elif char == "'":
                self._skip(1)
                parts.append(self._skip(self._to("'")))
                self._skip(1)
            elif char == '"':
                self._quoted(parts)
            elif char == "$":
                parts.append(self._dollar())
            elif char == "`":
                parts.append(self._backquoted())
            else:
                parts.append(self._skip(1))
        return "".join(parts)

    def _quoted(self, parts: list[str]) -> None:
        self._skip(1)
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "\\":
                parts.append(self._skip(2)[1:])
            elif char == "$":
                parts.append(self._dollar())
            elif char == "`":
                parts.append(self._backquoted())
            else:
                parts.append(self._skip(1))
        self._skip(1)

    def _dollar(self) -> str:
        self._skip(1)
        if self.text.startswith("((", self.at):
            self._balanced("(", ")")
        elif self.text.startswith("(", self.at):
            self._substitution()
        elif self.text.startswith("{", self.at):
            line = self.line
            self.inner(f': "{self._balanced("{", "}")}"', line)
        return "$"

    def _substitution(self) -> None:
        line = self.line
        self.inner(self._balanced("(", ")"), line)

    def _backquoted(self) -> str:
        self._skip(1)
        line = self.line
        self.inner(self._skip(self._to("`")), line)
        self._skip(1)
        return "$"

    def _balanced(self, opening: str, closing: str) -> str:
        """What is inside of brackets; quotes in it hide brackets."""
        begin, deep = self.at + 1, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                self._skip(1)
            elif char == "'":
                self._skip(1)
                self._skip(self._to("'"))
            elif char == '"':
                self._pass_quoted()
                continue
            elif char == opening:
                deep += 1
            elif char == closing:
                deep -= 1
            self._skip(1)
            if deep == 0:
                return self.text[begin : self.at - 1]
        return self.text[begin:]

    def _pass_quoted(self) -> None:
        self._skip(1)
        self.brackets += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            if self.text[self.at] == "\\":
                self._skip(2)
            elif self.text.startswith("$(", self.at) and self.brackets < MAX_BRACKETS:
                self._skip(1)
                self._balanced("(", ")")
            else:
                self._skip(1)
        self.brackets -= 1
        self._skip(1)
