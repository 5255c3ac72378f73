// The gated delta rule for one value head of one sequence, in float32; see
// kernels/gated_delta_rule/reference.py for the formulas.
#pragma once
#include "products.h"

constexpr int CHUNK = 64;
constexpr int64_t LARGE = 8 << 20; // bytes of state that are gone from the caches at the next token

struct Head {
    const float *q, *k, *v;  // [time] rows: key_dim, key_dim, value_dim
    int64_t key_ld, ld;      // how far apart: q and k, v
    const float *decay, *beta; // log-decay and beta, `gate_ld` apart
    int64_t gate_ld;
    int64_t time, key_dim, value_dim;
    const float* before; // [key_dim][value_dim] or null for zeros
    float* after;        // may be `before`
    float* out;          // [time] rows of value_dim, `out_ld` apart
    int64_t out_ld;
    bool large; // all states that a pass writes are more than LARGE
};

INLINE void unit(const float* x, int64_t n, float scale, float* to) {
    F16 s = zero();
    for (int64_t i = 0; i < n; i += 16) s = fma(load(x + i), load(x + i), s);
    F16 by = set1(scale / sqrtf(sum(s) + 1e-6f));
    for (int64_t i = 0; i < n; i += 16) store(to + i, load(x + i) * by);
}

static int64_t delta_floats(int64_t key_dim, int64_t value_dim) {
    return CHUNK * (4 * key_dim + 3 * value_dim + 2 * CHUNK + 8) + 64;
}

// A state that is not read again soon goes past the caches, which saves reading what it overwrites.
INLINE void keep_state(float* to, F16 x, bool past) {
#if defined(__AVX512F__)
    if (past) return _mm512_stream_ps(to, (__m512)x.v[0]);
#endif
    store(to, x);
}

// Token by token: reads and writes the state once a token.
static void delta_steps(const Head& h, float* scratch) {
    constexpr int N = PARTS == 1 ? 8 : 1;
    int64_t dk = h.key_dim, dv = h.value_dim;
    float *q = scratch, *k = q + dk;
    const float* s = h.before;
    if (!s) {
        memset(h.after, 0, dk * dv * 4);
        s = h.after;
    }
    for (int64_t t = 0; t < h.time; ++t) {
        unit(h.q + t * h.key_ld, dk, 1.0f / sqrtf((float)dk), q);
        unit(h.k + t * h.key_ld, dk, 1.0f, k);
        float keep = expf(h.decay[t * h.gate_ld]), beta = h.beta[t * h.gate_ld];
        F16 qk = zero();
        for (int64_t i = 0; i < dk; i += 16) qk = fma(load(q + i), load(k + i), qk);
        F16 dot = set1(sum(qk)), g = set1(keep);
        const float* v = h.v + t * h.ld;
        float* out = h.out + t * h.out_ld;
        bool past = h.large && t + 1 == h.time && h.after != s && (uintptr_t)h.after % 64 == 0;
        for (int64_t j = 0; j < dv;) {
#define COLUMNS(C)                                                             \
    {                                                                          \
        F16 ks[C], qs[C], d[C];                                                \
        for (int c = 0; c < C; ++c) ks[c] = qs[c] = zero();                    \
        for (int64_t i = 0; i < dk; ++i) {                                     \
            F16 ki = set1(k[i]), qi = set1(q[i]);                              \
            for (int c = 0; c < C; ++c) {                                      \
                ask(s + i * dv + j + 16 * c);                                  \
                F16 row = load(s + i * dv + j + 16 * c);                       \
                ks[c] = fma(ki, row, ks[c]);                                   \
                qs[c] = fma(qi, row, qs[c]);                                   \
            }                                                                  \
        }                                                                      \
        for (int c = 0; c < C; ++c) {                                          \
            d[c] = (load(v + j + 16 * c) - g * ks[c]) * set1(beta);            \
            store(out + j + 16 * c, fma(dot, d[c], g * qs[c]));                \
        }                                                                      \
        for (int64_t i = 0; i < dk; ++i) {                                     \
            F16 ki = set1(k[i]);                                               \
            for (int c = 0; c < C; ++c) {                                      \
                F16 row = load(s + i * dv + j + 16 * c);                       \
                keep_state(h.after + i * dv + j + 16 * c, fma(ki, d[c], g * row),     \
                           past);                                              \
            }                                                                  \
        }                                                                      \
        j += 16 * C;                                                           \
    }
            if (dv - j >= 16 * N) COLUMNS(N) else COLUMNS(1)
#undef COLUMNS
        }
        s = h.after;
    }
#if defined(__AVX512F__)
    if (h.large) _mm_sfence(); // what went past the caches comes before what follows
#endif
}

INLINE void matmul(const float* a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                   const float* b, int64_t ldb, float* c, int64_t ldc, int64_t n, bool add) {
    multiply<StepF32>((const int32_t*)a, rs, cs, rows, depth, (const char*)b, 64, ldb * 4, c, ldc,
                      n, add);
}

// In chunks: the corrections of a chunk solve a unit lower triangular system, by blocks of rows.
static void delta_chunks(const Head& h, float* scratch) {
    constexpr int B = 16;
    int64_t dk = h.key_dim, dv = h.value_dim;
    float *q = scratch, *k = q + CHUNK * dk, *kt = k + CHUNK * dk, *kd = kt + CHUNK * dk;
    float *d = kd + CHUNK * dk, *o = d + CHUNK * dv, *ks = o + CHUNK * dv;
    float *system = ks + CHUNK * dv, *attend = system + CHUNK * CHUNK;
    float *c = attend + CHUNK * CHUNK, *beta = c + CHUNK;
    float* s = h.after;
    if (h.before && h.before != s) memcpy(s, h.before, dk * dv * 4);
    if (!h.before) memset(s, 0, dk * dv * 4);
    for (int64_t start = 0; start < h.time; start += CHUNK) {
        int64_t n = least(CHUNK, h.time - start), padded = (n + 15) & ~15;
        float sum_decay = 0;
        for (int64_t i = 0; i < n; ++i) {
            int64_t t = start + i;
            unit(h.q + t * h.key_ld, dk, 1.0f / sqrtf((float)dk), q + i * dk);
            unit(h.k + t * h.key_ld, dk, 1.0f, k + i * dk);
            sum_decay += h.decay[t * h.gate_ld];
            c[i] = sum_decay;
            beta[i] = h.beta[t * h.gate_ld];
        }
        memset(kt, 0, dk * CHUNK * 4);
        for (int64_t b = 0; b < n; b += 16) {
            float block[16 * 16];
            for (int64_t j = 0; j < dk; j += 16) {
                turn((const int32_t*)k + b * dk + j, dk, least(16, n - b), 16, (int32_t*)block);
                for (int r = 0; r < 16; ++r) store(kt + (j + r) * CHUNK + b, load(block + r * 16));
            }
        }
        matmul(k, dk, 1, n, dk, kt, CHUNK, system, CHUNK, padded, false);
        matmul(q, dk, 1, n, dk, kt, CHUNK, attend, CHUNK, padded, false);
        for (int64_t i = 0; i < n; ++i) {
            // Above the diagonal the exponent is positive and could overflow: left out, not used.
            float e[CHUNK];
            for (int64_t j = 0; j < padded; j += 16) {
                float t[16];
                for (int64_t x = 0; x < 16; ++x) t[x] = j + x <= i ? c[i] - c[j + x] : -87.0f;
                store(e + j, exp(load(t)));
            }
            for (int64_t j = 0; j <= i; ++j) attend[i * CHUNK + j] *= e[j];
            for (int64_t j = i + 1; j < padded; ++j) attend[i * CHUNK + j] = 0;
            for (int64_t j = 0; j < i; ++j) system[i * CHUNK + j] *= -beta[i] * e[j];
        }
        matmul(k, dk, 1, n, dk, s, dv, ks, dv, dv, false);
        matmul(q, dk, 1, n, dk, s, dv, o, dv, dv, false);
        for (int64_t i = 0; i < n; ++i) {
            F16 grow = set1(expf(c[i])), b = set1(beta[i]);
            const float* v = h.v + (start + i) * h.ld;
            for (int64_t j = 0; j < dv; j += 16) {
                store(d + i * dv + j, (load(v + j) - grow * load(ks + i * dv + j)) * b);
                store(o + i * dv + j, load(o + i * dv + j) * grow);
            }
        }
        for (int64_t b = 0; b < n; b += B) {
            int64_t end = least(n, b + B);
            if (b) matmul(system + b * CHUNK, CHUNK, 1, end - b, b, d, dv, d + b * dv, dv, dv, true);
            for (int64_t i = b + 1; i < end; ++i)
                matmul(system + i * CHUNK + b, CHUNK, 1, 1, i - b, d + b * dv, dv, d + i * dv, dv,
                       dv, true);
        }
        // Row i needs the corrections up to i: whole blocks of 16, zeros above the diagonal.
        for (int64_t b = 0; b < n; b += 16)
            matmul(attend + b * CHUNK, CHUNK, 1, least(16, n - b), least(n, b + 16), d, dv,
                   o + b * dv, dv, dv, true);
        for (int64_t i = 0; i < n; ++i) {
            memcpy(h.out + (start + i) * h.out_ld, o + i * dv, dv * 4);
            F16 left = set1(expf(c[n - 1] - c[i]));
            for (int64_t j = 0; j < dk; j += 16)
                store(kd + i * dk + j, load(k + i * dk + j) * left);
        }
        F16 keep = set1(expf(c[n - 1]));
        for (int64_t i = 0; i < dk * dv; i += 16) store(s + i, load(s + i) * keep);
        matmul(kd, 1, dk, dk, n, d, dv, s, dv, dv, true);
    }
}

static void delta_rule(const Head& h, bool steps, float* scratch) {
    steps ? delta_steps(h, scratch) : delta_chunks(h, scratch);
}

// Depthwise causal convolution with SiLU over rows of x, `ld` apart. Inputs count as rounded to
// the dtype of the state, which holds the last width - 1 of them, so that it does not matter where
// a sequence is cut.
struct Conv {
    const float* x;
    int64_t ld, time, channels, width;
    const float* weight; // [width][channels]
    const void* before;  // [width - 1][channels] or null
    void* after;         // may be `before`
    bool bf16;
};
INLINE F16 load_as(const void* p, int64_t i, bool bf16) {
    return bf16 ? load_bf16((const uint16_t*)p + i) : load((const float*)p + i);
}
INLINE F16 rounded(F16 x, bool bf16) {
    if (!bf16) return x;
    uint16_t t[16];
    store_bf16(t, x);
    return load_bf16(t);
}
INLINE F16 conv_input(const Conv& c, int64_t t, int64_t i) {
    if (t >= 0) return rounded(load(c.x + t * c.ld + i), c.bf16);
    if (!c.before) return zero();
    return load_as(c.before, (t + c.width - 1) * c.channels + i, c.bf16);
}
INLINE void conv_row(const Conv& c, int64_t t, float* out) {
    for (int64_t i = 0; i < c.channels; i += 16) {
        F16 s = zero();
        for (int64_t j = 0; j < c.width; ++j)
            s = fma(conv_input(c, t - (c.width - 1) + j, i), load(c.weight + j * c.channels + i), s);
        store(out + i, silu(s));
    }
}
// After all rows are done.
INLINE void conv_state(const Conv& c) {
    for (int64_t j = 0; j < c.width - 1; ++j)
        for (int64_t i = 0; i < c.channels; i += 16) {
            F16 x = conv_input(c, c.time - (c.width - 1) + j, i);
            if (c.bf16)
                store_bf16((uint16_t*)c.after + j * c.channels + i, x);
            else
                store((float*)c.after + j * c.channels + i, x);
        }
}
