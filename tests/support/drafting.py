"""Steps of sessions that are compared with and without drafts."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kernels.native import LEVELS
from model.hybrid.cpu import NativeModel
from model.hybrid.cpu_mtp import NativeMtp
from model.hybrid.model import HybridModel, HybridNetwork
from model.sampling import SamplingParams
from model.session import Session, TokenEvent
from model.state.memory import StateMemory
from model.state.pages import MtpChain
from tests.support.native import library, random_tensors, small_config

MTP_CONFIG = small_config(vocab_size=300, mtp_num_hidden_layers=1)
GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, top_k=50, top_p=0.9, presence_penalty=0.5)


def mtp_network(
    dtype: torch.dtype = torch.float32,
    limit: int | None = None,
    *,
    mtp: bool = True,
    context_length: int = MTP_CONFIG.context_length,
    attention_layers: int = 1,
) -> HybridNetwork:
    """A small compiled network with an MTP layer, and states of at most ``limit`` bytes."""
    layers = MTP_CONFIG.layer_types * attention_layers
    config = replace(MTP_CONFIG, context_length=context_length, layer_types=layers)
    model = HybridModel.build(config, random_tensors(config), dtype)
    compiled = NativeModel(model, library(LEVELS[0]))
    return HybridNetwork(
        model,
        fingerprint="x",
        compiled=compiled,
        memory=StateMemory(limit),
        mtp=NativeMtp(compiled) if mtp else None,
    )


def guessed_logits(network: HybridNetwork, chain: MtpChain | None, ids: list[int]) -> list[Tensor]:
    """The logits after each of ``ids``, guessed one from the other."""
    assert chain is not None
    found = []
    for token in ids:
        ((logits, chain),) = network.guess([(chain, token)])
        found.append(logits)
    return found


def say(session: Session, count: int, params: SamplingParams = WARM) -> list[TokenEvent]:
    return list(session.generate(params, max_tokens=count, stop_ids=frozenset()))


def detour(session: Session, kind: str, count: int) -> Session:
    """Something that must leave no trace; the session to go on with."""
    if kind == "rewind":
        point = session.snapshot()
        say(session, count)
        session.extend([5, 6])
        session.restore(point)
    elif kind == "fork":
        twin = session.fork()
        say(session, count)
        return twin
    elif kind == "fork and stay":
        say(session.fork(), count, GREEDY)
    elif kind == "save":
        with tempfile.TemporaryDirectory() as folder:
            session.save(Path(folder))
            resumed = Session.resume(session._scheduler, Path(folder))
        resumed._drafter = session._drafter.copy()
        return resumed
    elif kind == "park":
        session.park()
    return session
