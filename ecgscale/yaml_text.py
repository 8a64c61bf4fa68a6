"""YAML as people expect it: `1e5` is a number, a key given twice is an error, and every value knows its line.

PyYAML follows YAML 1.1, which reads `1e5` as text and lets the last of two equal keys win silently (PyYAML issue 173).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
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
        self._text = text
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

    def with_values(self, values: Mapping[tuple[Any, ...], str]) -> str:
        """The text with other scalars at some places; all else, comments too, stays as it is.

        Args:
            values: location of a key → its YAML. A key that is missing is put behind the last of its mapping.

        Raises:
            SpecError: the mapping is missing or empty, or one part of the text is the value at two places (an alias).
        """
        edits: dict[tuple[int, int], str] = {}
        for (*parents, key), value in values.items():
            mapping = self._at(tuple(parents))
            if not isinstance(mapping, yaml.MappingNode) or not mapping.value:
                raise SpecError(f"{self.name}: {'.'.join(map(str, parents))} is no mapping that could be changed")
            old = next((v for k, v in mapping.value if k.value == key), None)
            if old is not None:
                place, new = (old.start_mark.index, old.end_mark.index), value
            else:
                last_key, last = mapping.value[-1]
                between = ", " if mapping.flow_style else "\n" + " " * last_key.start_mark.column
                place, new = (last.end_mark.index, last.end_mark.index), f"{between}{key}: {value}"
            if edits.setdefault(place, new) != new:
                where = ".".join(map(str, (*parents, key)))
                raise SpecError(f"{self.name}: {where} is shared by an alias; write it out")
        text = self._text
        for (start, end), new in sorted(edits.items(), reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def _at(self, location: tuple[Any, ...]) -> Any:
        node = self._root
        for part in location:
            items = node.value if isinstance(node, yaml.MappingNode) else ()
            node = next((v for k, v in items if k.value == str(part)), None)
        return node
