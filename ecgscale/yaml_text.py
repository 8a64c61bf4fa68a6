"""YAML as people expect it: `1e5` is a number, a key given twice is an error, and every value knows its line.

PyYAML follows YAML 1.1, which reads `1e5` as text and lets the last of two equal keys win silently (PyYAML issue 173).
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from ecgscale.errors import SpecError


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be one word or number", key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in keys:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        keys.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


class YamlText:
    """A parsed YAML document: its `value`, and the line of each part of it.

    Raises:
        SpecError: the text is not YAML, or gives a key twice.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            self._root = yaml.compose(text, Loader=_Loader)
            self.value = yaml.load(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise SpecError(f"{name}:{line}: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise SpecError(f"{name}:{line}: {error.reason} (character {error.character!r})") from None

    def line(self, location: tuple[Any, ...]) -> int:
        """The line where `location` (keys and indices) starts, or that of its nearest existing parent."""
        node, line = self._root, 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if found is None:
                    return line
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                return line
        return line
