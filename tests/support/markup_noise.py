"""Noise that now and then wants to write the markup of a call."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from model.chat.tokenizer import Tokenizer

WISHES = (
    "\n</parameter>\n</function>\n</tool_call>",
    "\n</parameter>\n<parameter=",
    "</function>\n</tool_call><|im_end|>",
    "<tool_call>\n<function=",
    "<|im_end|>",
)


class MarkupNoise:
    """Logits for one turn after the other: random, but for the next token of a wish."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._size = tokenizer.vocab_size
        self._wishes = [tokenizer.encode_markup(text) for text in WISHES]
        self._random, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self._wish: list[int] = []

    def logits(self) -> Tensor:
        """Return ``[vocab]`` for the next token."""
        logits = torch.randn(self._size, generator=self.generator)
        if not self._wish and self._random.random() < 0.3:
            self._wish = list(self._random.choice(self._wishes))
        if self._wish:
            logits[self._wish[0]] += 25
        return logits

    def took(self, token: int) -> None:
        """Note what was sampled; a wish that was not granted is given up."""
        if self._wish and self._wish.pop(0) != token:
            self._wish = []
