"""Store keys and values in 8 bits."""

from __future__ import annotations

from kernels.kv_cache.reference import SCALE_BYTES, dequantise, in_bytes, parts, quantise

__all__ = ["SCALE_BYTES", "dequantise", "in_bytes", "parts", "quantise"]
