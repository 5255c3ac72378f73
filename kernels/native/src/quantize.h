// From float weights to the blocks of products.h; the twin of kernels/linear/formats.py.
#pragma once
#include "products.h"

// Clipped ranges that are tried for int4, as parts of the whole one. The best has the least error.
static const float CLIPS[] = {1.0f, 0.94f, 0.88f, 0.82f, 0.76f};

INLINE float error_of(const float* w, int64_t n, float scale) {
    F16 total = zero(), s = set1(scale), by = set1(1.0f / scale);
    for (int64_t i = 0; i < n; i += 16) {
        F16 x = load(w + i), q = x * by;
        EACH {
            vf r = (q.v[h] + 12582912.0f) - 12582912.0f;
            r = r < -8.0f ? -8.0f - vf{} : r;
            r = r > 7.0f ? 7.0f - vf{} : r;
            q.v[h] = r;
        }
        F16 e = x - q * s;
        total = fma(e, e, total);
    }
    return sum(total);
}
INLINE float group_scale(const float* w, int64_t n, int bits) {
    float signed_top = 0;
    for (int64_t i = 0; i < n; ++i)
        if (fabsf(w[i]) > fabsf(signed_top)) signed_top = w[i];
    if (bits == 8) return from_bf16(to_bf16(fabsf(signed_top) / 127.0f));
    float best = 0, least_error = INFINITY;
    for (float clip : CLIPS) {
        float scale = from_bf16(to_bf16(signed_top / -8.0f * clip));
        if (scale == 0) break;
        float e = error_of(w, n, scale);
        if (e < least_error) least_error = e, best = scale;
    }
    return best;
}
INLINE int quantum(float w, float by, int bits) {
    float r = (w * by + 12582912.0f) - 12582912.0f;
    float low = bits == 8 ? -127.0f : -8.0f, high = bits == 8 ? 127.0f : 7.0f;
    return (int)(r < low ? low : r > high ? high : r);
}

// A block of 16 rows, of which `rows` exist. row(i) gives row i as float in a buffer.
template <class Row>
static void quantize_block(const Row& row, int64_t rows, int64_t inputs, int64_t group, int bits,
                           uint8_t* data, uint16_t* scales) {
    for (int64_t i = 0; i < 16; ++i) {
        const float* w = i < rows ? row(i) : nullptr;
        for (int64_t g = 0; g < inputs / group; ++g) {
            float scale = w ? group_scale(w + g * group, group, bits) : 0;
            float by = scale != 0 ? 1.0f / scale : 0;
            scales[g * 16 + i] = to_bf16(scale);
            for (int64_t k = g * group; k < (g + 1) * group; ++k) {
                int q = w ? quantum(w[k], by, bits) : 0;
                if (bits == 8)
                    data[k / 4 * 64 + i * 4 + k % 4] = (uint8_t)(q + 128);
                else if (k / 4 % 2 == 0)
                    data[k / 8 * 64 + i * 4 + k % 4] = (uint8_t)(q + 8);
                else
                    data[k / 8 * 64 + i * 4 + k % 4] |= (uint8_t)((q + 8) << 4);
            }
        }
    }
}
