"""Tokens to text while they come: never half a character, never part of a stop string."""

from collections.abc import Sequence

from gossamer.data import Tokenizer

_BROKEN = "\ufffd"
"""What a tokenizer writes for bytes that are no character, or not yet."""


class TextStream:
    """The text that follows a prompt, piece by piece; the pieces joined are the whole text.

    Special tokens give no text. A stop string is not part of the text, and nothing follows it.

    Attributes:
        stopped: whether a stop string has come.

    Args:
        tokenizer: decodes.
        prompt: the tokens in front: a tokenizer writes the first token of a text without its
            space, and a character may start in one token and end in the next.
        stop: strings that end the text, whichever is complete first; they may span tokens.

    Raises:
        ValueError: a stop string is empty.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] = (), stop: Sequence[str] = ()
    ) -> None:
        if "" in stop:
            raise ValueError(f"A stop string needs at least one character, got {list(stop)}.")
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._context = list(prompt)
        self._pending: list[int] = []
        self._given = self._decode()  # the text of context and pending, as far as given away
        self._open = self._given.endswith(_BROKEN)  # the context ends within a character
        self._held = ""  # may be the start of a stop string

    def push(self, token: int) -> str:
        """Takes the next token; gives the text that is certain now, often a word or nothing."""
        self._pending.append(token)
        text = self._decode()
        whole = text.rstrip(_BROKEN)
        piece = self._behind_given(whole)
        if piece:
            self._given = whole
        if piece and whole == text:
            # These end with a character and are context enough for what follows: decoding the whole
            # text for every token would take quadratic time.
            self._context = self._context + self._pending if self._open else self._pending
            self._pending, self._open = [], False
            self._given = self._decode()
        return self._release(piece)

    def finish(self) -> str:
        """The text still held back; a character cut off by the end is written as U+FFFD."""
        if self.stopped:
            return ""
        rest = self._held + self._behind_given(self._decode())
        self._context, self._pending, self._given, self._held = [], [], "", ""
        return rest

    def _behind_given(self, text: str) -> str:
        # A character that the prompt left open is written as U+FFFD until it is complete.
        given = self._given if text.startswith(self._given) else self._given.rstrip(_BROKEN)
        return text[len(given) :]

    def _decode(self) -> str:
        return self._tokenizer.decode(self._context + self._pending)

    def _release(self, piece: str) -> str:
        """Cuts at a stop string, and holds back what could become one."""
        text = self._held + piece
        found = [index for stop in self._stop if (index := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` starts with; not all of it.

    Example:
        >>> _overlap("one tw", "two")
        2
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
