"""What a reader sees of a page."""

import re
from html import unescape


def words(page: str) -> str:
    """Without tags, styles and scripts; any white space is one blank."""
    body = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
