"""What pages say, in French and in English: one file a language under languages/, the same keys in each.

The language is the person's choice (a cookie), else the first of the browser's that there is, else the site's. A text
is asked for by its key (`demo.title`); `{name}` in it is filled in; a text of the forms `one` and `other` goes by `n`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

LANGUAGES = ("en", "fr")
NAMES = {"en": "English", "fr": "Français"}
COOKIE = "language"


@lru_cache(maxsize=len(LANGUAGES))
def texts(language: str) -> Mapping[str, Any]:
    """Every text of a language, by section and key. Raises KeyError for a language that there is not."""
    if language not in LANGUAGES:
        raise KeyError(language)
    content = (files("radia.web") / "languages" / f"{language}.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(content)
    return loaded


def text(language: str, key: str, **values: object) -> str:
    """The text of a key such as `demo.title`, its places filled in. Raises KeyError where a key is missing."""
    found: Any = texts(language)
    for part in key.split("."):
        found = found[part]
    if isinstance(found, Mapping):
        number = values.get("n")
        # French counts 0 and 1 as one, English 1 alone
        alone = isinstance(number, int) and (number == 1 or (number == 0 and language == "fr"))
        found = found["one" if alone else "other"]
    return str(found).format(**values) if values else str(found)


def chosen(cookie: str | None, accepted: str | None, default: str) -> str:
    """The language to answer in. accepted: the best of the browser's, or None."""
    return cookie if cookie in LANGUAGES else accepted if accepted in LANGUAGES else default
