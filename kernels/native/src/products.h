// Products with a weight matrix: few rows (each weight is read once) and many rows (tiles in registers
// over panels in cache). Formats of a weight [outputs, inputs]:
//   F32, BF16  row by row, as a checkpoint stores it; up to four matrices stacked
//   I8, I4     blocks of 16 outputs: [outputs/16][inputs/4][16][4] bytes, value + 128; for I4 two
//              such words of four share a byte, value + 8, the earlier one in the low half.
//              Scales are bfloat16 [outputs/16][inputs/group][16].
// For I8 and I4 the input row is cut into the same groups and rounded to signed bytes, so that
// products are sums of integers (exact, in any order), scaled once a group.
#pragma once
#include "simd.h"

enum { F32 = 0, BF16 = 1, I8 = 2, I4 = 3 };

struct Matrix {
    int64_t format, inputs, group, parts;
    int64_t rows[4];
    const void* data[4];
    const uint16_t* scales;
};
INLINE int64_t outputs(const Matrix& m) {
    int64_t n = 0;
    for (int i = 0; i < m.parts; ++i) n += m.rows[i];
    return n;
}
INLINE bool integer(int64_t format) { return format >= I8; }

// Input rows in the form that a format multiplies. `words` are 32-bit words a row.
struct Rows {
    const char* data;
    int64_t count, words;
    const float* scale;   // [count][groups], integer formats
    const int32_t* total; // [count][groups], the sums of the bytes
    int64_t groups;
};

// Bytes that `prepare` needs for `count` rows of `inputs`.
static int64_t prepared_bytes(int64_t inputs, int64_t count) { return count * inputs * 5 + 4096; }

INLINE void store_bytes(int8_t* to, I16 x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x.v[0]));
#else
    EACH for (int j = 0; j < WIDTH; ++j) to[h * WIDTH + j] = (int8_t)x.v[h][j];
#endif
}
INLINE void quantize_group(const float* x, int64_t n, int8_t* q, float* scale, int32_t* total) {
    F16 top = zero(), bad = zero();
    for (int64_t i = 0; i < n; i += 16) {
        F16 v = load(x + i);
        top = max(top, absolute(v));
        bad = bad + (v - v);
    }
    float most = largest(top);
    float up = most > 0 ? 127.0f / most : 0.0f;
    *scale = most / 127.0f + sum(bad); // inf and NaN become NaN
    I16 sums = set1i(0);
    for (int64_t i = 0; i < n; i += 16) {
        F16 v = load(x + i) * set1(up) + set1(12582912.0f); // rounds to the nearest, ties to even
        I16 w;
        EACH w.v[h] = (vi)v.v[h] - 0x4b400000;
        sums = sums + w;
        store_bytes(q + i, w);
    }
    int32_t t = 0;
    EACH for (int j = 0; j < WIDTH; ++j) t += sums.v[h][j];
    *total = t;
}

struct Prepared {
    char* data;
    float* scale;
    int32_t* total;
    int64_t format, inputs, group;
};
static Prepared room(const Matrix& m, int64_t count, char* scratch) {
    int64_t groups = integer(m.format) ? m.inputs / m.group : 0;
    Prepared p = {scratch, nullptr, nullptr, m.format, m.inputs, m.group};
    int64_t body = (count * m.inputs * (integer(m.format) ? 1 : m.format == BF16 ? 2 : 4) + 63) & ~63;
    p.scale = (float*)(scratch + body);
    p.total = (int32_t*)(p.scale + count * groups);
    return p;
}
INLINE void prepare_row(const Prepared& p, int64_t r, const float* x) {
    if (p.format == F32) {
        memcpy(p.data + r * p.inputs * 4, x, p.inputs * 4);
    } else if (p.format == BF16) {
        uint16_t* to = (uint16_t*)p.data + r * p.inputs;
        for (int64_t i = 0; i < p.inputs; i += 16) store_bf16(to + i, load(x + i));
    } else {
        int64_t groups = p.inputs / p.group;
        for (int64_t g = 0; g < groups; ++g)
            quantize_group(x + g * p.group, p.group, (int8_t*)p.data + r * p.inputs + g * p.group,
                           p.scale + r * groups + g, p.total + r * groups + g);
    }
}
static Rows rows_of(const Prepared& p, int64_t count) {
    int64_t per = integer(p.format) ? 4 : p.format == BF16 ? 2 : 1;
    return {p.data, count, p.inputs / per, p.scale, p.total,
            integer(p.format) ? p.inputs / p.group : 0};
}

// One step of a product: the lanes of a word of the weight with those of the input.
struct StepF32 {
    INLINE F16 step(F16 acc, I16 w, I16 a) {
        EACH acc.v[h] = (vf)w.v[h] * (vf)a.v[h] + acc.v[h];
        return acc;
    }
};
struct StepBF16 {
    INLINE F16 step(F16 acc, I16 w, I16 a) { return dot2(acc, w, a); }
};

constexpr int AHEAD = 2048; // bytes: measured, see docs/performance.md
constexpr int TILE = PARTS == 1 ? 12 : 6, BLOCKS = PARTS == 1 ? 2 : 1;

INLINE void put(float* to, F16 x, int64_t n, bool add) {
    if (n >= 16) {
        store(to, add ? load(to) + x : x);
    } else {
        float t[16];
        store(t, x);
        for (int64_t i = 0; i < n; ++i) to[i] = add ? to[i] + t[i] : t[i];
    }
}

// C[M][16 B] (+)= A[M][words] B: A's word (r, k) at a + r*rs + k*cs, B's 64 bytes (block, k) at
// b + block*between + k*along. `n` columns are stored.
template <class S, int M, int B>
static inline void tile(const int32_t* a, int64_t rs, int64_t cs, int64_t words, const char* b,
                        int64_t between, int64_t along, float* c, int64_t ldc, int64_t n, bool add) {
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    for (int64_t k = 0; k < words; ++k) {
        I16 w[B];
        for (int j = 0; j < B; ++j) w[j] = loadi(b + j * between + k * along);
        for (int r = 0; r < M; ++r) {
            I16 x = set1i(a[r * rs + k * cs]);
            for (int j = 0; j < B; ++j) acc[r][j] = S::step(acc[r][j], w[j], x);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j)
            if (n > 16 * j) put(c + r * ldc + 16 * j, acc[r][j], n - 16 * j, add);
}

#define BY_ROWS(CALL)                                                   \
    for (int64_t r = 0, left; (left = rows - r) > 0;) {                 \
        if (left >= TILE) { CALL(TILE); r += TILE; }                    \
        else if (left >= 4) { CALL(4); r += 4; }                        \
        else if (left >= 2) { CALL(2); r += 2; }                        \
        else { CALL(1); r += 1; }                                       \
    }

// The same for any number of rows and columns.
template <class S>
static inline void multiply(const int32_t* a, int64_t rs, int64_t cs, int64_t rows, int64_t words,
                            const char* b, int64_t between, int64_t along, float* c, int64_t ldc,
                            int64_t n, bool add) {
    // Rows outside, so that a tile of A is read from the nearest cache for all of B.
#define ONE(M)                                                                                      \
    for (int64_t j = 0; j < n; j += 16 * BLOCKS) {                                                  \
        if (n - j > 16 * (BLOCKS - 1))                                                              \
            tile<S, M, BLOCKS>(a + r * rs, rs, cs, words, b + j / 16 * between, between, along,     \
                               c + r * ldc + j, ldc, n - j, add);                                   \
        else                                                                                        \
            tile<S, M, 1>(a + r * rs, rs, cs, words, b + j / 16 * between, between, along,          \
                          c + r * ldc + j, ldc, n - j, add);                                        \
    }
    BY_ROWS(ONE)
#undef ONE
}

// Integer tile over whole rows of A: M input rows, B blocks of 16 outputs.
template <int M, int B>
static inline void tile_int(const char* a, int64_t inputs, int64_t group, const float* scale,
                            const int32_t* total, int64_t groups, int32_t offset, const char* b,
                            int64_t between, const uint16_t* s, int64_t s_between, float* c,
                            int64_t ldc, int64_t n, bool add) {
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    for (int64_t g = 0; g < groups; ++g) {
        I16 dots[M][B];
        for (int r = 0; r < M; ++r)
            for (int j = 0; j < B; ++j) dots[r][j] = set1i(-offset * total[r * groups + g]);
        const char* bg = b + g * group * 16;
        const char* ag = a + g * group;
        for (int64_t k = 0; k < group / 4; ++k) {
            I16 w[B];
            for (int j = 0; j < B; ++j) w[j] = loadi(bg + j * between + k * 64);
            if (M <= 8 && B == 1) __builtin_prefetch(bg + k * 64 + AHEAD);
            for (int r = 0; r < M; ++r) {
                I16 x = set1i(word(ag + r * inputs + k * 4));
                for (int j = 0; j < B; ++j) dots[r][j] = dot4(dots[r][j], w[j], x);
            }
        }
        for (int j = 0; j < B; ++j) {
            F16 ws = load_bf16(s + j * s_between + g * 16);
            for (int r = 0; r < M; ++r)
                acc[r][j] = fma(to_float(dots[r][j]) * set1(scale[r * groups + g]), ws, acc[r][j]);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j)
            if (n > 16 * j) put(c + r * ldc + 16 * j, acc[r][j], n - 16 * j, add);
}

// Few rows, int4: each 64 bytes of the weight are unpacked once for M rows. Sums of integers may be
// split: several at once for one row, since each step of a sum waits for the one before.
template <int M>
static inline void few_int4(const char* a, int64_t inputs, int64_t group, const float* scale,
                            const int32_t* total, int64_t groups, const char* b,
                            const uint16_t* s, float* c, int64_t ldc, int64_t n, bool add) {
    constexpr int U = M == 1 ? 2 : 1;
    F16 acc[M];
    for (int r = 0; r < M; ++r) acc[r] = zero();
    for (int64_t g = 0; g < groups; ++g) {
        I16 low[M][U], high[M][U];
        for (int r = 0; r < M; ++r)
            for (int u = 0; u < U; ++u) {
                low[r][u] = set1i(u ? 0 : -8 * total[r * groups + g]);
                high[r][u] = set1i(0);
            }
        const char* bg = b + g * group * 8;
        const char* ag = a + g * group;
        for (int64_t k = 0; k < group / 8; k += U)
            for (int u = 0; u < U; ++u) {
                I16 w = loadi(bg + (k + u) * 64);
                __builtin_prefetch(bg + (k + u) * 64 + AHEAD);
                I16 first = mask(w, 0x0f0f0f0f), second = mask(shift(w, 4), 0x0f0f0f0f);
                for (int r = 0; r < M; ++r) {
                    const char* x = ag + r * inputs + (k + u) * 8;
                    low[r][u] = dot4(low[r][u], first, set1i(word(x)));
                    high[r][u] = dot4(high[r][u], second, set1i(word(x + 4)));
                }
            }
        F16 ws = load_bf16(s + g * 16);
        for (int r = 0; r < M; ++r) {
            I16 dots = low[r][0] + high[r][0];
            for (int u = 1; u < U; ++u) dots = dots + (low[r][u] + high[r][u]);
            acc[r] = fma(to_float(dots) * set1(scale[r * groups + g]), ws, acc[r]);
        }
    }
    for (int r = 0; r < M; ++r) put(c + r * ldc, acc[r], n, add);
}

// Few rows, weights row by row: M input rows, N outputs, lanes along the inputs.
template <class S, int M, int N>
static inline void few_float(const int32_t* a, int64_t words, const int32_t* b, float* c,
                             int64_t ldc, bool add) {
    F16 acc[M][N];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) acc[r][j] = zero();
    for (int64_t k = 0; k < words; k += 16) {
        I16 w[N];
        for (int j = 0; j < N; ++j) {
            w[j] = loadi(b + j * words + k);
            __builtin_prefetch((const char*)(b + j * words + k) + AHEAD);
        }
        for (int r = 0; r < M; ++r) {
            I16 x = loadi(a + r * words + k);
            for (int j = 0; j < N; ++j) acc[r][j] = S::step(acc[r][j], w[j], x);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) {
            float s = sum(acc[r][j]);
            c[r * ldc + j] = add ? c[r * ldc + j] + s : s;
        }
}

template <class S, int N>
static inline void few_float_rows(const Rows& x, const int32_t* b, float* c, int64_t ldc, bool add) {
    const int32_t* a = (const int32_t*)x.data;
    int64_t r = 0;
    for (; r + 4 <= x.count; r += 4)
        few_float<S, 4, N>(a + r * x.words, x.words, b, c + r * ldc, ldc, add);
    for (; r < x.count; ++r)
        few_float<S, 1, N>(a + r * x.words, x.words, b, c + r * ldc, ldc, add);
}

// Turns 16 rows of `words` words into [words][16].
INLINE void turn(const int32_t* from, int64_t ld, int64_t rows, int64_t words, int32_t* to) {
    int64_t k = 0;
#if defined(__AVX512F__)
    for (; rows == 16 && k + 16 <= words; k += 16) {
        __m512i t[16], u[16];
        for (int i = 0; i < 16; ++i) t[i] = _mm512_loadu_si512(from + i * ld + k);
        for (int i = 0; i < 16; i += 2) {
            u[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]);
            u[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]);
        }
        for (int i = 0; i < 16; i += 4) {
            t[i] = _mm512_unpacklo_epi64(u[i], u[i + 2]);
            t[i + 1] = _mm512_unpackhi_epi64(u[i], u[i + 2]);
            t[i + 2] = _mm512_unpacklo_epi64(u[i + 1], u[i + 3]);
            t[i + 3] = _mm512_unpackhi_epi64(u[i + 1], u[i + 3]);
        }
        for (int i = 0; i < 4; ++i) {
            u[i] = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x88);
            u[4 + i] = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xdd);
            u[8 + i] = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x88);
            u[12 + i] = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xdd);
        }
        for (int i = 0; i < 4; ++i) {
            _mm512_storeu_si512(to + (k + i) * 16, _mm512_shuffle_i32x4(u[i], u[8 + i], 0x88));
            _mm512_storeu_si512(to + (k + 8 + i) * 16, _mm512_shuffle_i32x4(u[i], u[8 + i], 0xdd));
            _mm512_storeu_si512(to + (k + 4 + i) * 16,
                                _mm512_shuffle_i32x4(u[4 + i], u[12 + i], 0x88));
            _mm512_storeu_si512(to + (k + 12 + i) * 16,
                                _mm512_shuffle_i32x4(u[4 + i], u[12 + i], 0xdd));
        }
    }
#endif
    for (; k < words; ++k)
        for (int64_t i = 0; i < 16; ++i) to[k * 16 + i] = i < rows ? from[i * ld + k] : 0;
}

constexpr int64_t PANEL = 64;     // outputs a panel
constexpr int64_t DEPTH = 1024;   // 32-bit words of depth a panel of float weights

// Bytes of panel that each thread needs.
static int64_t panel_bytes(int64_t inputs) {
    int64_t whole = PANEL * inputs, floats = PANEL * DEPTH * 4;
    return ((whole > floats ? whole : floats) + 4095) & ~4095;
}

// One product of a call: several that share their rows run as one, so that threads wait once.
struct Task {
    const Matrix* m;
    Rows x;
    float* out; // [count][ldc]
};

// Blocks of 16 outputs `j` .. of one part of a plain matrix.
template <class S>
static inline void few_plain(const Task& t, int part, int64_t first, int64_t j, int64_t ldc, bool add) {
    const Rows& x = t.x;
    const int32_t* b = (const int32_t*)t.m->data[part];
    float* c = t.out + first;
    int64_t end = least(t.m->rows[part], j + 16);
    // One row after the other is one long stream, which memory delivers fastest; several at once
    // save loads of x, which matter when there are more rows of it. The sums are the same.
    for (; x.count > 2 && j + 4 <= end; j += 4)
        few_float_rows<S, 4>(x, b + j * x.words, c + j, ldc, add);
    for (; j < end; ++j) few_float_rows<S, 1>(x, b + j * x.words, c + j, ldc, add);
}

static inline void few_integers(const Task& t, int64_t i, int64_t ldc, bool add) {
    const Matrix& m = *t.m;
    const Rows& x = t.x;
    int64_t inputs = m.inputs, groups = x.groups, rows = x.count, width = m.rows[0] - i * 16;
    bool four = m.format == I4;
    int64_t between = inputs * (four ? 8 : 16);
    const char* b = (const char*)m.data[0] + i * between;
    const uint16_t* s = m.scales + i * groups * 16;
    float* c = t.out + i * 16;
#define ONE(M)                                                                                     \
    if (four)                                                                                      \
        few_int4<M>(x.data + r * inputs, inputs, m.group, x.scale + r * groups,                    \
                    x.total + r * groups, groups, b, s, c + r * ldc, ldc, width, add);             \
    else                                                                                           \
        tile_int<M, 1>(x.data + r * inputs, inputs, m.group, x.scale + r * groups,                 \
                       x.total + r * groups, groups, 128, b, between, s, groups * 16,              \
                       c + r * ldc, ldc, width, add);
    for (int64_t r = 0, left; (left = rows - r) > 0;) {
        if (left >= 8) { ONE(8); r += 8; }
        else if (left >= 4) { ONE(4); r += 4; }
        else if (left >= 2) { ONE(2); r += 2; }
        else { ONE(1); r += 1; }
    }
#undef ONE
}

template <class S>
static inline void many_plain(const Task& t, int part, int64_t first, int64_t j, int64_t ldc, bool add,
                              int32_t* panel) {
    const Rows& x = t.x;
    const int32_t* b = (const int32_t*)t.m->data[part];
    float* c = t.out + first;
    int64_t width = least(PANEL, t.m->rows[part] - j);
    for (int64_t k = 0; k < x.words; k += DEPTH) {
        int64_t depth = least(DEPTH, x.words - k);
        for (int64_t q = 0; q < width; q += 16)
            turn(b + (j + q) * x.words + k, x.words, least(16, width - q), depth, panel + q * depth);
        multiply<S>((const int32_t*)x.data + k, x.words, 1, x.count, depth, (const char*)panel,
                    depth * 64, 64, c + j, ldc, width, add || k > 0);
    }
}

static inline void many_integers(const Task& t, int64_t j0, int64_t ldc, bool add, char* panel) {
    const Matrix& m = *t.m;
    const Rows& x = t.x;
    int64_t inputs = m.inputs, groups = x.groups, rows = x.count;
    bool four = m.format == I4;
    int64_t stored = inputs * (four ? 8 : 16), between = inputs * 16;
    int32_t offset = four ? 8 : 128;
    int64_t width = least(PANEL, m.rows[0] - j0), blocks = ceil_div(width, 16);
    const char* b = (const char*)m.data[0] + j0 / 16 * stored;
    const uint16_t* s = m.scales + j0 / 16 * groups * 16;
    if (four) {
        for (int64_t k = 0; k < blocks * stored; k += 64) {
            I16 w = loadi(b + k), low = mask(w, 0x0f0f0f0f);
            I16 high = mask(shift(w, 4), 0x0f0f0f0f);
            memcpy(panel + 2 * k, &low, 64);
            memcpy(panel + 2 * k + 64, &high, 64);
        }
        b = panel;
    }
#define ONE(M)                                                                                      \
    for (int64_t j = 0; j < width; j += 16 * BLOCKS) {                                              \
        const char* bj = b + j / 16 * between;                                                      \
        const uint16_t* sj = s + j / 16 * groups * 16;                                              \
        float* c = t.out + r * ldc + j0 + j;                                                        \
        if (width - j > 16 * (BLOCKS - 1))                                                          \
            tile_int<M, BLOCKS>(x.data + r * inputs, inputs, m.group, x.scale + r * groups,         \
                                x.total + r * groups, groups, offset, bj, between, sj, groups * 16, \
                                c, ldc, width - j, add);                                            \
        else                                                                                        \
            tile_int<M, 1>(x.data + r * inputs, inputs, m.group, x.scale + r * groups,              \
                           x.total + r * groups, groups, offset, bj, between, sj, groups * 16, c,   \
                           ldc, width - j, add);                                                    \
    }
    BY_ROWS(ONE)
#undef ONE
}

// out[count][ldc] (+)= x times the matrix, for each task. Few rows give the same bits for a row
// whatever the others are; `exact_rows` keeps to that for any count.
static void products(const Task* tasks, int count, int64_t ldc, bool add, bool exact_rows,
                     char* panels, int threads) {
    bool few = exact_rows || tasks[0].x.count <= 16;
    int64_t unit = few ? 16 : PANEL, total = 0, room = panel_bytes(tasks[0].m->inputs);
    for (int i = 0; i < count; ++i)
        for (int p = 0; p < tasks[i].m->parts; ++p) total += ceil_div(tasks[i].m->rows[p], unit);
    parallel(total, threads, [&](int64_t index, int thread) {
        int i = 0, p = 0;
        int64_t first = 0;
        for (int64_t here; index >= (here = ceil_div(tasks[i].m->rows[p], unit)); index -= here) {
            first += tasks[i].m->rows[p];
            if (++p == tasks[i].m->parts) ++i, p = 0, first = 0;
        }
        const Task& t = tasks[i];
        char* panel = panels + thread * room;
        if (integer(t.m->format))
            few ? few_integers(t, index, ldc, add)
                : many_integers(t, index * unit, ldc, add, panel);
        else if (t.m->format == BF16)
            few ? few_plain<StepBF16>(t, p, first, index * unit, ldc, add)
                : many_plain<StepBF16>(t, p, first, index * unit, ldc, add, (int32_t*)panel);
        else
            few ? few_plain<StepF32>(t, p, first, index * unit, ldc, add)
                : many_plain<StepF32>(t, p, first, index * unit, ldc, add, (int32_t*)panel);
    });
}
