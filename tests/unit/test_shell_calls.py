"""Which commands a shell script calls, by cases, and on any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.bootimage.ignition.shell import calls, unwrapped

pytestmark = pytest.mark.unit


def names(script: str) -> list[str]:
    """The names of the commands that a script calls."""
    return [call.words[0] for call in calls(script)]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("a b c", ["a"]),
        ("a; b && c || d | e & f", ["a", "b", "c", "d", "e", "f"]),
        ("a \\\n  b\nc", ["a", "c"]),
        ("A=1 B='x y' a", ["a"]),
        ("A=$(a b) C=`c d`", ["a", "c"]),
        ("# a\nb # c\nd#e", ["b", "d#e"]),
        ("'a' \"b\"; \"c\"'d'", ["a", "cd"]),
        ("if a; then b; elif ! c; then d; else e; fi; f", ["a", "b", "c", "d", "e", "f"]),
        ("while a; do b; done <c; until d\ndo\ne\ndone", ["a", "b", "d", "e"]),
        ("for x in a b $(c); do d; done", ["c", "d"]),
        ("case $x in a) b ;; c|d) e; f ;; esac; g", ["b", "e", "f", "g"]),
        ("case a in (b) case c in d) e;; esac;; f) g;; esac\nh", ["e", "g", "h"]),
        ("f() { a; }\ng () (b)\nfunction h { c; }\nf; g; h; i", ["a", "b", "c", "i"]),
        ('f() { "$@"; }\nf 5 -x a --y=1 b; f', ["$@", "a", "b"]),
        ("exec &> >(a b) ; c >& d", ["a", "c"]),
        ("a >b 2>&1 <c >>d &>e f; g", ["a", "g"]),
        (">b a", ["a"]),
        ('a <<E\nb\n$(c)"\nE\nd', [":", "a", "c", "d"]),
        ("a <<'E'\nb\n$(c)\nE\nd", ["a", "d"]),
        ("a <<-'E F' b", ["a"]),
        ('a <<-E; b <<"F"\nx\n\tE\ny\nF\nc', [":", "a", "b", "c"]),
        ("a <<<b; c", ["a", "c"]),
        ('a "$(b "$(c)" d)" e', ["b", "c", "a"]),
        ('a "${x:-$(b)}"', [":", "b", "a"]),
        ("a $((1 + (2))) b; c", ["a", "c"]),
        ("diff <(a) >(b)", ["a", "b", "diff"]),
        ("[[ a && b ]] && c", ["c"]),
        ("[ -e a ] || b", ["[", "b"]),
        ("sudo -u core -- a; exec -a x b; timeout -k 5 10 c; env -i X=1 d", ["a", "b", "c", "d"]),
        ("a | xargs -n 1 b; nice -n 5 c; flock -w 1 /x d", ["a", "b", "c", "d"]),
        ('echo "it\'s $(a "don\'t" ")")"; b', ["a", "echo", "b"]),
        ("", []),
        ("$x y; $(a) z", ["$x", "a", "$"]),
    ],
)
def test_commands_are_found_in_their_places(script: str, found: list[str]) -> None:
    assert sorted(names(script)) == sorted(found)


def test_lines_are_those_of_the_script() -> None:
    script = "#!/bin/bash\n\na \\\n  b\nc $(\n  d\n) <<\"E\"\nx\nE\ne 'x\ny'; f\n"
    assert {call.words[0]: call.line for call in calls(script)} == {
        "a": 3,
        "c": 5,
        "d": 6,
        "e": 10,
        "f": 11,
    }


def test_wrappers_of_wrappers_are_taken_away() -> None:
    assert unwrapped(["/usr/bin/env", "A=b", "sudo", "-u", "x", "nohup", "c", "-d"]) == ("c", "-d")
    assert unwrapped(["sudo", "-u"]) == ()
    assert unwrapped(["command", "-v", "a"]) == ()


@given(st.text(alphabet="ab \n\"'$(){}`\\;&|<>#E=-[]", max_size=200) | st.text())
def test_any_text_is_read_to_its_end(text: str) -> None:
    for call in calls(text):
        assert call.words
        assert 1 <= call.line <= text.count("\n") + 1


@pytest.mark.parametrize("piece", ['"$(', "$(", "`", "${", "(", "<<E\n", '$("${'])
def test_what_is_nested_deeply_ends(piece: str) -> None:
    assert isinstance(calls(piece * 2000), list)
