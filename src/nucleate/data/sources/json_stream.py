"""Items of one big JSON array or object, read one after the other in bounded memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nucleate.data.sources.byte_stream import ByteStream
from nucleate.errors import ParseError

_BLOCK = 2**20
#: A record of 1000 atoms with descriptors is below 1 MB; anything larger is not one record.
MAX_ITEM_CHARACTERS = 64 * 2**20
_SPACE = " \t\r\n"
_NUMBER_CHARACTERS = "0123456789+-.eE"


@dataclass(frozen=True)
class JsonItem:
    """One item: the byte where it starts, its key (an index in an array), and its value."""

    offset: int
    key: int | str
    value: Any


class _Text:
    """A sliding window of text over a byte stream, with the byte offset of its first character."""

    def __init__(self, stream: ByteStream, offset: int) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._ended = False
        self.window = ""
        self.at = 0
        self._counted = 0  # characters of the window whose bytes are already in _offset
        self._offset = offset

    def more(self) -> bool:
        """Read another block; False at the end. Drops what lies behind ``at``."""
        if self._ended:
            return False
        self.position()
        self.window = self.window[self.at :]
        self.at = self._counted = 0
        # Growing with the window keeps the number of attempts on a long item logarithmic.
        block = self._stream.read(max(_BLOCK, len(self.window)))
        self._ended = not block
        self.window += self._decode(block, final=not block)
        return True

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            while self.at < len(self.window) and self.window[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.window):
                return self.window[self.at]
            if not self.more():
                return ""

    def take(self, decoder: json.JSONDecoder) -> Any:
        """The next JSON value."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self.window, self.at)
            except ValueError as error:
                if len(self.window) - self.at > MAX_ITEM_CHARACTERS:
                    raise ParseError(
                        f"One item is longer than {MAX_ITEM_CHARACTERS // 2**20} MiB."
                    ) from error
                if not self.more():
                    raise ParseError(
                        f"The JSON is damaged or cut short at byte {self.position()}."
                    ) from error
                continue
            except RecursionError as error:
                raise ParseError(f"The JSON is nested too deeply at byte {self.position()}.") from error
            # A number that ends with the window may go on behind it ("0" of "0.5").
            if not self.window[end:].strip(_NUMBER_CHARACTERS) and self.more():
                continue
            self.at = end
            return value

    def position(self) -> int:
        """Byte offset of the next character."""
        passed = self.window[self._counted : self.at]
        self._offset += len(passed) if passed.isascii() else len(passed.encode("utf-8"))
        self._counted = self.at
        return self._offset


def iter_json_items(stream: ByteStream, offset: int = 0, *, first: int = 0) -> Iterator[JsonItem]:
    """Items of the array or object in the stream; from ``offset`` on, if one of an array starts there.

    Args:
        stream: UTF-8 bytes, seekable where ``offset`` is not 0.
        offset: 0, or the offset of an earlier ``JsonItem`` of an array.
        first: index of that item.

    Raises:
        ParseError: not JSON, or it breaks off; the items before have been given by then.
    """
    decoder = json.JSONDecoder()
    stream.seek(offset)
    text = _Text(stream, offset)
    try:
        yield from _items(text, decoder, first, inside=offset > 0)
    except UnicodeDecodeError as error:
        raise ParseError(f"The JSON is not UTF-8 near byte {text.position()}.") from error


def _items(text: _Text, decoder: json.JSONDecoder, index: int, *, inside: bool) -> Iterator[JsonItem]:
    opening = "[" if inside else text.peek()
    if opening == "\ufeff":
        text.at += 1
        opening = text.peek()
    if opening not in ("[", "{"):
        raise ParseError("The file is empty." if opening == "" else "The file is not a JSON array or object.")
    closing = "]" if opening == "[" else "}"
    if not inside:
        text.at += 1
        if text.peek() == closing:
            return
    while True:
        text.peek()
        offset = text.position()
        key: int | str = index
        if opening == "{":
            key = text.take(decoder)
            if not isinstance(key, str) or text.peek() != ":":
                raise ParseError(f"The JSON is damaged at byte {text.position()}: a key is missing.")
            text.at += 1
        yield JsonItem(offset, key, text.take(decoder))
        index += 1
        mark = text.peek()
        text.at += 1
        if mark == closing:
            return
        if mark != ",":
            text.at -= 1
            raise ParseError(
                f"The JSON is damaged or cut short at byte {text.position()}, after item {index}."
            )
