// From float weights to the blocks of products.h; the twin of kernels/linear/formats.py.
#pragma once
#include "products.h"
#include <initializer_list>

// A block of 16 rows, of which `rows` exist, in 8 bits. row(i) gives row i as float in a buffer.
template <class Row>
static void quantize_block(const Row& row, int64_t rows, int64_t inputs, int64_t group, uint8_t* data,
                           uint16_t* scales) {
    for (int64_t i = 0; i < 16; ++i) {
        const float* w = i < rows ? row(i) : nullptr;
        for (int64_t g = 0; g < inputs / group; ++g) {
            float most = 0;
            for (int64_t k = g * group; w && k < (g + 1) * group; ++k)
                most = fabsf(w[k]) > most ? fabsf(w[k]) : most;
            float scale = from_bf16(to_bf16(most / 127.0f)), by = scale != 0 ? 1.0f / scale : 0;
            scales[g * 16 + i] = to_bf16(scale);
            for (int64_t k = g * group; k < (g + 1) * group; ++k) {
                float q = w ? (w[k] * by + 12582912.0f) - 12582912.0f : 0;
                data[k / 4 * 64 + i * 4 + k % 4] =
                    (uint8_t)((int)(q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q) + 128);
            }
        }
    }
}

// Codes of a table of 16 numbers, in rising order, with a scale for 16 weights: signed bytes times a
// bfloat16 top for `span` weights of a row. The twin is in kernels/linear/rounding.py.
struct Levels {
    F16 first, middle[15], rise[15];
    float low, high;
    explicit Levels(const int8_t* table) : first(set1(table[0])), low(table[0]), high(table[15]) {
        for (int i = 0; i < 15; ++i) {
            middle[i] = set1((table[i] + table[i + 1]) * 0.5f);
            rise[i] = set1((float)(table[i + 1] - table[i]));
        }
    }
    // The nearest levels.
    INLINE_MEMBER F16 near(F16 x) const {
        F16 q = first;
        for (int i = 0; i < 15; ++i) EACH {
            vi above = x.v[h] > middle[i].v[h];
            q.v[h] += (vf)((vi)rise[i].v[h] & above);
        }
        return q;
    }
};
static const float RANGES[] = {1.05f, 0.98f, 0.91f, 0.84f, 0.77f};

// The scale, which may be negative, that takes 16 weights nearest to levels: by least squares for the
// levels that each end and clipped range gives.
static float best_scale(const Levels& levels, F16 w) {
    float least_error = INFINITY, best = 0, top = 0;
    float values[16];
    store(values, w);
    for (float v : values)
        if (fabsf(v) > fabsf(top)) top = v;
    for (float end : {levels.low, levels.high})
        for (float range : RANGES) {
            float tried = top / end * range;
            if (tried == 0 || !isfinite(1.0f / tried)) continue;
            F16 q = levels.near(w * set1(1.0f / tried));
            float square = sum(q * q), scale = square > 0 ? sum(q * w) / square : 0;
            F16 e = w - q * set1(scale);
            float error = sum(e * e);
            if (error < least_error) least_error = error, best = scale;
        }
    return best;
}
// One row: codes [inputs], steps [inputs/16], tops [inputs/span].
static void quantize_row(const Levels& levels, const int8_t* table, const float* w, int64_t inputs,
                         int64_t span, uint8_t* codes, int8_t* steps, uint16_t* tops, float* scales) {
    for (int64_t g = 0; g < inputs / 16; ++g) scales[g] = best_scale(levels, load(w + 16 * g));
    for (int64_t s = 0; s < inputs / span; ++s) {
        float most = 0;
        for (int64_t g = s * span / 16; g < (s + 1) * span / 16; ++g)
            most = fabsf(scales[g]) > most ? fabsf(scales[g]) : most;
        uint16_t top = to_bf16(most / 127.0f);
        if (from_bf16(top) * 127.0f < most) ++top; // steps must not exceed a byte
        float by = from_bf16(top);
        tops[s] = top;
        for (int64_t g = s * span / 16; g < (s + 1) * span / 16; ++g) {
            float step = by > 0 ? nearbyintf(scales[g] / by) : 0, scale = step * by;
            steps[g] = (int8_t)(step > 127 ? 127 : step < -127 ? -127 : step);
            float q[16];
            store(q, levels.near(load(w + 16 * g) * set1(scale != 0 ? 1.0f / scale : 0.0f)));
            for (int i = 0; i < 16; ++i) {
                uint8_t code = 0;
                for (int k = 1; k < 16; ++k) code += q[i] >= (float)table[k];
                codes[16 * g + i] = code;
            }
        }
    }
}
