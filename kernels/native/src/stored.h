// Products with weights as they lie in a GGUF file, row by row: nothing is turned or copied, so that
// what nobody multiplies with is never read. Layouts: ggml's block_q8_0, block_q4_K, block_q5_K,
// block_q6_K (gguf 0.19, gguf/quants.py).
#pragma once
#include "products.h"

// `UNIT` weights in `BYTES`; groups of `PIECE` share a scale; codes exceed the integers by `OVER`;
// `FORM` is the format of products.h that its codes are multiplied as, once they are bytes.
template <int Q> struct Stored;
template <> struct Stored<Q8_0> {
    static constexpr int UNIT = 64, BYTES = 68, PIECE = 32, FORM = I8, OVER = 0, TERMS = 0;
};
template <> struct Stored<Q4_K> {
    static constexpr int UNIT = 256, BYTES = 144, PIECE = 32, FORM = I4, OVER = 0, TERMS = 1;
};
template <> struct Stored<Q5_K> {
    static constexpr int UNIT = 256, BYTES = 176, PIECE = 32, FORM = I5, OVER = 0, TERMS = 1;
};
template <> struct Stored<Q6_K> {
    static constexpr int UNIT = 256, BYTES = 210, PIECE = 16, FORM = I6, OVER = 32, TERMS = 0;
};

INLINE float half(const uint8_t* p) {
    uint16_t h;
    memcpy(&h, p, 2);
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    uint16_t t[16] = {h};
    F16 r = load_half(t);
    return r.v[0][0];
#endif
}
// 32 bytes, and the same shifted to the right by `n` bits as words of 32.
INLINE I16 twice(const uint8_t* p, int n) {
    I16 r;
#if defined(__AVX512F__)
    __m256i low = _mm256_loadu_si256((const __m256i*)p);
    r.v[0] = (vi)_mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_srli_epi32(low, n), 1);
#else
    memcpy(&r, p, 32);
    memcpy((char*)&r + 32, p, 32);
    for (int h = PARTS / 2; h < PARTS; ++h)
        r.v[h] = (vi)((vi)r.v[h] >> n);
#endif
    return r;
}

// The codes of a unit, in order, as bytes: unsigned, or for Q8_0 as the integers themselves where
// products take them so (PAIRS).
template <int Q> INLINE void unit_codes(const uint8_t* p, I16* to) {
    constexpr int32_t HALF = 0x0f0f0f0f;
    if (Q == Q8_0) {
        for (int i = 0; i < 2; ++i) memcpy((char*)to + 32 * i, p + 34 * i + 2, 32);
        if (!PAIRS) to[0] = to[0] ^ set1i((int32_t)0x80808080);
    } else if (Q == Q4_K || Q == Q5_K) {
        const uint8_t* low = p + (Q == Q4_K ? 16 : 48);
        for (int i = 0; i < 4; ++i) {
            to[i] = mask(twice(low + 32 * i, 4), HALF);
            if (Q == Q5_K)
                to[i] = to[i] | raise(mask(shift(twice(p + 16, 1), 2 * i), 0x01010101), 4);
        }
    } else {
        for (int i = 0; i < 2; ++i) {
            I16 low = loadi(p + 64 * i), high = twice(p + 128 + 32 * i, 2);
            to[2 * i] = mask(low, HALF) | raise(mask(high, 0x03030303), 4);
            to[2 * i + 1] = mask(shift(low, 4), HALF) | raise(mask(shift(high, 4), 0x03030303), 4);
        }
    }
}
// The scales of a unit's pieces, and the terms: of Q4_K and Q5_K the file's own, of others what takes
// back the excess of the codes.
template <int Q> INLINE void unit_scales(const uint8_t* p, float* by, float* term) {
    if (Q == Q8_0) {
        for (int i = 0; i < 2; ++i) by[i] = half(p + 34 * i), term[i] = PAIRS ? 0 : -128 * by[i];
    } else if (Q == Q4_K || Q == Q5_K) {
        float d = half(p), least_d = -half(p + 2);
        uint32_t a, b, c;
        memcpy(&a, p + 4, 4), memcpy(&b, p + 8, 4), memcpy(&c, p + 12, 4);
        uint32_t packed[4] = {a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030),
                              b & 0x3f3f3f3f, ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030)};
        uint8_t bytes[16];
        memcpy(bytes, packed, 16);
        for (int i = 0; i < 8; ++i) by[i] = d * bytes[i], term[i] = least_d * bytes[8 + i];
    } else {
        float d = half(p + 208);
        const int8_t* scales = (const int8_t*)p + 192;
        for (int i = 0; i < 16; ++i) by[i] = d * scales[i], term[i] = -32.0f * by[i];
    }
}

// Each of the numbers at `s` in the lanes of its piece: two of eight lanes, or four of four.
template <int PIECE> INLINE F16 spread(const float* s) {
    F16 r;
#if defined(__AVX512F__)
    if (PIECE == 32) {
        r.v[0] = (vf)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set1_ps(s[0])),
                                        _mm256_set1_ps(s[1]), 1);
    } else {
        const __m512i at = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
        r.v[0] = (vf)_mm512_permutexvar_ps(at, _mm512_castps128_ps512(_mm_loadu_ps(s)));
    }
#elif defined(__AVX2__)
    EACH r.v[h] = PIECE == 32 ? (vf)_mm256_broadcast_ss(s + h)
                              : (vf)_mm256_set_m128(_mm_broadcast_ss(s + 2 * h + 1),
                                                    _mm_broadcast_ss(s + 2 * h));
#else
    EACH r.v[h] = s[h * WIDTH * 4 / PIECE] - vf{};
#endif
    return r;
}

// The sums of four neighbouring products in each lane.
template <int Q> INLINE I16 fours(I16 w, I16 a) {
    I16 dots = set1i(0);
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i ones = _mm256_set1_epi16(1);
    EACH {
        __m256i u = (__m256i)w.v[h], s = (__m256i)a.v[h];
        __m256i p = Q == Q8_0 ? _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(s, u))
                              : _mm256_maddubs_epi16(u, s);
        dots.v[h] = (vi)_mm256_madd_epi16(p, ones);
    }
    return dots;
#else
    return dot4(dots, w, a);
#endif
}

// M input rows, one output: a unit is unpacked once for all of them.
template <int Q, int M>
static inline void few_stored_row(const Rows& x, int64_t r0, int64_t inputs, const uint8_t* b,
                                  float* c, int64_t ldc, bool add) {
    using S = Stored<Q>;
    constexpr int GROUPS = S::UNIT / S::PIECE, LINES = S::UNIT / 64;
    F16 acc[M];
    float rest[M][GROUPS];
    for (int r = 0; r < M; ++r) {
        acc[r] = zero();
        for (int g = 0; g < GROUPS; ++g) rest[r][g] = 0;
    }
    for (int64_t u = 0; u * S::UNIT < inputs; ++u, b += S::BYTES) {
        for (int k = 0; k < S::BYTES; k += 64) ask(b + k);
        I16 codes[LINES];
        float by[GROUPS], term[GROUPS], s[GROUPS];
        unit_codes<Q>(b, codes);
        unit_scales<Q>(b, by, term);
        for (int r = 0; r < M; ++r) {
            const char* a = x.data + (r0 + r) * inputs + u * S::UNIT;
            const float* scale = x.scale + (r0 + r) * x.groups + u * GROUPS;
            const int32_t* sums = x.sums + (r0 + r) * x.groups + u * GROUPS;
            for (int g = 0; g < GROUPS; ++g) {
                s[g] = by[g] * scale[g];
                if (S::TERMS || S::OVER || !PAIRS) rest[r][g] += term[g] * (scale[g] * (float)sums[g]);
            }
            for (int i = 0; i < LINES; ++i)
                acc[r] = fma(to_float(fours<Q>(codes[i], loadi(a + 64 * i))),
                             spread<S::PIECE>(s + i * 64 / S::PIECE), acc[r]);
        }
    }
    for (int r = 0; r < M; ++r) {
        float t = sum(acc[r]);
        for (int g = 0; g < GROUPS; ++g) t += rest[r][g];
        c[r * ldc] = add ? c[r * ldc] + t : t;
    }
}
// Outputs `j` to j + FEW of one part.
template <int Q>
static inline void few_stored(const Task& t, int part, int64_t first, int64_t j, int64_t ldc, bool add) {
    int64_t inputs = t.m->inputs, stride = inputs / Stored<Q>::UNIT * Stored<Q>::BYTES;
    int64_t count = t.x.count, end = least(t.m->rows[part], j + FEW);
    const uint8_t* b = (const uint8_t*)t.m->data[part];
    float* c = t.out + first;
#define ONE(M) few_stored_row<Q, M>(t.x, r, inputs, b + j * stride, c + r * ldc + j, ldc, add)
    for (; j < end; ++j)
        for (int64_t r = 0; r < count;) {
            if (count - r >= 4) { ONE(4); r += 4; }
            else if (count - r >= 2) { ONE(2); r += 2; }
            else { ONE(1); r += 1; }
        }
#undef ONE
}

// Many rows: the codes of a panel of outputs become bytes in cache, with their scales as float32.
template <int Q>
static inline void many_stored(const Task& t, int part, int64_t first, int64_t j0, int64_t ldc,
                               bool add, char* panel) {
    using S = Stored<Q>;
    constexpr int P = S::PIECE, GROUPS = S::UNIT / P, PER = S::TERMS ? 32 : 16;
    const Rows& x = t.x;
    int64_t inputs = t.m->inputs, groups = inputs / P, rows = x.count, between = inputs * 16;
    int64_t stride = inputs / S::UNIT * S::BYTES, width = least(PANEL, t.m->rows[part] - j0);
    float* numbers = (float*)(panel + PANEL * inputs);
    char* bytes = (char*)(numbers + PANEL / 16 * groups * PER);
    for (int64_t q = 0; q < width; q += 16) {
        int64_t high = least(16, width - q);
        float* scales = numbers + q / 16 * groups * PER;
        for (int64_t o = 0; o < high; ++o) {
            const uint8_t* b = (const uint8_t*)t.m->data[part] + (j0 + q + o) * stride;
            for (int64_t u = 0; u * S::UNIT < inputs; ++u, b += S::BYTES) {
                float by[GROUPS], term[GROUPS];
                unit_codes<Q>(b, (I16*)(bytes + o * inputs + u * S::UNIT));
                unit_scales<Q>(b, by, term);
                for (int g = 0; g < GROUPS; ++g) {
                    float* at = scales + (u * GROUPS + g) * PER + o;
                    at[0] = by[g];
                    if (S::TERMS) at[16] = term[g];
                }
            }
        }
        for (int64_t o = high; o < 16; ++o)
            for (int64_t g = 0; g < groups * PER; g += 16) scales[g + o] = 0;
        turn((const int32_t*)bytes, inputs / 4, high, inputs / 4, (int32_t*)(panel + q * inputs));
    }
    Matrix m = {};
    m.format = S::FORM, m.inputs = inputs, m.group = P, m.scales = numbers;
    m.scale_kind = SCALE_F32, m.terms = S::TERMS, m.zero = S::FORM == I8 ? 128 : S::OVER;
    const ScaleTable table(m);
#define ONE(M)                                                                                      \
    for (int64_t j = 0; j < width; j += 16)                                                         \
        tile_int<S::FORM, P, M, 1>(x, r, m, table, j / 16, panel + j * inputs, between,             \
                                   t.out + first + r * ldc + j0 + j, ldc, width - j, add);
    BY_INT_ROWS(ONE)
#undef ONE
}

// `rows` rows of weights as float32.
template <int Q>
static inline void unpack_stored(const uint8_t* b, int64_t rows, int64_t inputs, float* to) {
    using S = Stored<Q>;
    constexpr int GROUPS = S::UNIT / S::PIECE;
    for (int64_t u = 0; u < rows * (inputs / S::UNIT); ++u, b += S::BYTES, to += S::UNIT) {
        alignas(64) uint8_t codes[S::UNIT];
        float by[GROUPS], term[GROUPS];
        unit_codes<Q>(b, (I16*)codes);
        unit_scales<Q>(b, by, term);
        for (int i = 0; i < S::UNIT; ++i) {
            int g = i / S::PIECE, code = Q == Q8_0 && PAIRS ? (int)(int8_t)codes[i] : codes[i];
            int over = Q == Q8_0 ? (PAIRS ? 0 : 128) : S::OVER;
            to[i] = by[g] * (float)(code - over) + (S::TERMS ? term[g] : 0.0f);
        }
    }
}

// CALL(Q) for the format of a matrix.
#define BY_STORED(format, CALL)                \
    switch (format) {                          \
    case Q8_0: CALL(Q8_0); break;              \
    case Q4_K: CALL(Q4_K); break;              \
    case Q5_K: CALL(Q5_K); break;              \
    default: CALL(Q6_K);                       \
    }

static void run_stored(const Task& t, int part, int64_t first, int64_t index, bool few, int64_t ldc,
                       bool add, char* panel) {
#define RUN(Q)                                                                \
    few ? few_stored<Q>(t, part, first, index * FEW, ldc, add)                \
        : many_stored<Q>(t, part, first, index * PANEL, ldc, add, panel)
    BY_STORED(t.m->format, RUN)
#undef RUN
}
