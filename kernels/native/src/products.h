// Products with a weight matrix: few rows (few.h) and many rows, by tiles in registers over panels in
// cache.
#pragma once
#include "few.h"

constexpr int TILE = PARTS == 1 ? 12 : 6, BLOCKS = PARTS == 1 ? 2 : 1;

// C[M][16 B] (+)= A[M][words] B: A's word (r, k) at a + r*rs + k*cs, B's 64 bytes (block, k) at
// b + block*between + k*along. `n` columns are stored.
template <class S, int M, int B>
static inline void tile(const int32_t* a, int64_t rs, int64_t cs, int64_t words, const char* b,
                        int64_t between, int64_t along, float* c, int64_t ldc, int64_t n, bool add) {
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    Lines x_at(a, rs * 4);
    for (int64_t k = 0; k < words; ++k, x_at.move(cs * 4)) {
        x_at.fix();
        I16 w[B];
        for (int j = 0; j < B; ++j) w[j] = loadi(b + j * between + k * along);
        for (int r = 0; r < M; ++r) {
            I16 x = set1i(word(x_at.row(r)));
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

// The same with fewer variants, for the many formats of integers.
#define BY_INT_ROWS(CALL)                                               \
    for (int64_t r = 0, left; (left = rows - r) > 0;) {                 \
        if (PARTS < 4 && left >= TILE) { CALL((PARTS < 4 ? TILE : 1)); r += TILE; } \
        else if (left >= 2) { CALL(2); r += 2; }                        \
        else { CALL(1); r += 1; }                                       \
    }

// The same as tile for any number of rows and columns.
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

// Integer tile over whole rows of A: M input rows, B blocks of 16 outputs, whose codes lie at `b` as
// words of 64 bytes.
template <int F, int P, int M, int B>
static inline void tile_int(const Rows& x, int64_t r0, const Matrix& m, const ScaleTable& scales,
                            int64_t block, const char* b, int64_t between, float* c, int64_t ldc,
                            int64_t n, bool add) {
    int64_t groups = x.groups;
    const float* scale = x.scale + r0 * groups;
    const int32_t* sums = x.sums + r0 * groups;
    const int32_t over = excess<F>(m);
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    Lines x_at(x.data + r0 * m.inputs, m.inputs);
    for (int64_t g = 0; g < groups; ++g, x_at.move(P)) {
        I16 dots[M][B], part[M][B];
        for (int r = 0; r < M; ++r)
            for (int j = 0; j < B; ++j)
                dots[r][j] = set1i(-over * sums[r * groups + g]), part[r][j] = set1i(0);
        const char* bg = b + g * P * 16;
        x_at.fix();
UNROLLED
        for (int k = 0; k < P / 4; ++k) {
            I16 w[B];
            for (int j = 0; j < B; ++j) w[j] = loadi(bg + j * between + k * 64);
            for (int r = 0; r < M; ++r) {
                I16 v = set1i(word(x_at.row(r) + 4 * k));
                for (int j = 0; j < B; ++j) step<F>(dots[r][j], part[r][j], w[j], v, k, P / 4);
            }
        }
        for (int j = 0; j < B; ++j) {
            Scales s = scales.at(block + j, g);
            for (int r = 0; r < M; ++r)
                acc[r][j] = scaled(acc[r][j], dots[r][j], scale[r * groups + g],
                                   sums[r * groups + g], s, m.terms != 0);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j)
            if (n > 16 * j) put(c + r * ldc + 16 * j, acc[r][j], n - 16 * j, add);
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
    int64_t whole = 2 * PANEL * inputs, floats = PANEL * DEPTH * 4;
    return ((whole > floats ? whole : floats) + 4095) & ~4095;
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

// As many_plain for e4m3 weights, which become float32 in the panel.
static inline void many_e4m3(const Task& t, int64_t j, int64_t ldc, bool add, int32_t* panel) {
    const Matrix& m = *t.m;
    const Rows& x = t.x;
    int64_t width = least(PANEL, m.rows[0] - j), blocks = ceil_div(m.inputs, 128);
    for (int64_t k = 0; k < x.words; k += DEPTH) {
        int64_t depth = least(DEPTH, x.words - k);
        float rows[16][128];
        for (int64_t q = 0; q < width; q += 16)
            for (int64_t i = k; i < k + depth; i += 128) {
                int64_t count = least(128, k + depth - i), high = least(16, width - q);
                for (int64_t o = 0; o < high; ++o) {
                    int64_t output = j + q + o;
                    const uint8_t* w = (const uint8_t*)m.data[0] + output * m.inputs + i;
                    F16 by = set1(((const float*)m.scales)[output / m.span * blocks + i / 128] * 256.0f);
                    for (int64_t n = 0; n < count; n += 16)
                        store(rows[o] + n, load_e4m3(w + n) * by);
                }
                turn((const int32_t*)rows, 128, high, count, panel + q * depth + (i - k) * 16);
            }
        multiply<StepF32>((const int32_t*)x.data + k, x.words, 1, x.count, depth,
                          (const char*)panel, depth * 64, 64, t.out + j, ldc, width, add || k > 0);
    }
}

// As many_plain for float16 weights, which become float32 in the panel.
static inline void many_half(const Task& t, int part, int64_t first, int64_t j, int64_t ldc, bool add,
                             int32_t* panel) {
    const Rows& x = t.x;
    const uint16_t* b = (const uint16_t*)t.m->data[part];
    int64_t inputs = t.m->inputs, width = least(PANEL, t.m->rows[part] - j);
    for (int64_t k = 0; k < inputs; k += DEPTH) {
        int64_t depth = least(DEPTH, inputs - k);
        float rows[16][128];
        for (int64_t q = 0; q < width; q += 16)
            for (int64_t i = k; i < k + depth; i += 128) {
                int64_t count = least(128, k + depth - i), high = least(16, width - q);
                for (int64_t o = 0; o < high; ++o)
                    for (int64_t n = 0; n < count; n += 16)
                        store(rows[o] + n, load_half(b + (j + q + o) * inputs + i + n));
                turn((const int32_t*)rows, 128, high, count, panel + q * depth + (i - k) * 16);
            }
        multiply<StepF32>((const int32_t*)x.data + k, x.words, 1, x.count, depth, (const char*)panel,
                          depth * 64, 64, t.out + first + j, ldc, width, add || k > 0);
    }
}

template <int F, int P>
static inline void many_integers(const Task& t, int64_t j0, int64_t ldc, bool add, char* panel) {
    const Matrix& m = *t.m;
    const Rows& x = t.x;
    constexpr int BYTES = P * 2 * Code<F>::BITS;
    int64_t rows = x.count, between = m.inputs * 16;
    int64_t width = least(PANEL, m.rows[0] - j0), blocks = ceil_div(width, 16);
    const char* b = (const char*)m.data[0] + j0 / 16 * x.groups * BYTES;
    const ScaleTable scales(m);
    if (F != I8 || Code<F>::SIGNED) {
        const I16 table = table_of<F>(m);
        for (int64_t g = 0; g < blocks * x.groups; ++g)
UNROLLED
            for (int k = 0; k < P / 4; ++k) {
                I16 w = code_word<F>(b + g * BYTES, k, table);
                memcpy(panel + g * P * 16 + k * 64, &w, 64);
            }
        b = panel;
    }
#define ONE(M)                                                                                      \
    for (int64_t j = 0; j < width; j += 16 * BLOCKS) {                                              \
        const char* bj = b + j / 16 * between;                                                      \
        int64_t block = (j0 + j) / 16;                                                              \
        float* c = t.out + r * ldc + j0 + j;                                                        \
        if (width - j > 16 * (BLOCKS - 1))                                                          \
            tile_int<F, P, M, BLOCKS>(x, r, m, scales, block, bj, between, c, ldc, width - j, add); \
        else                                                                                        \
            tile_int<F, P, M, 1>(x, r, m, scales, block, bj, between, c, ldc, width - j, add);      \
    }
    BY_INT_ROWS(ONE)
#undef ONE
}

// Implemented in stored.h, for weights as they lie in a GGUF file.
static void run_stored(const Task& t, int part, int64_t first, int64_t index, bool few, int64_t ldc,
                       bool add, char* panel);

// Outputs `index` units on from the first of `part`, which begins at output `first` of the matrix. A
// unit has FEW or PANEL outputs.
static void run_unit(const Task& t, int part, int64_t first, int64_t index, bool few, int64_t ldc,
                     bool add, char* panel) {
    int64_t at = index * (few ? FEW : PANEL);
#define FEW_OF(F, A) few_integers<F, A>(t, index, ldc, add)
#define MANY_OF(F, A) many_integers<F, A>(t, at, ldc, add, panel)
    if (in_file(t.m->format)) {
        run_stored(t, part, first, index, few, ldc, add, panel);
    } else if (integer(t.m->format)) {
        if (few) { BY_FORMAT(*t.m, FEW_OF) } else { BY_FORMAT(*t.m, MANY_OF) }
    } else if (t.m->format == F8)
        few ? few_e4m3_outputs(t, at, ldc, add) : many_e4m3(t, at, ldc, add, (int32_t*)panel);
    else if (t.m->format == HALF)
        few ? few_half_outputs(t, part, first, at, ldc, add)
            : many_half(t, part, first, at, ldc, add, (int32_t*)panel);
    else if (t.m->format == BF16)
        few ? few_plain<StepBF16>(t, part, first, at, ldc, add)
            : many_plain<StepBF16>(t, part, first, at, ldc, add, (int32_t*)panel);
    else
        few ? few_plain<StepF32>(t, part, first, at, ldc, add)
            : many_plain<StepF32>(t, part, first, at, ldc, add, (int32_t*)panel);
#undef FEW_OF
#undef MANY_OF
}

// out[count][ldc] (+)= x times the matrix, for each task. Few rows give the same bits for a row
// whatever the others are; `exact_rows` keeps to that for any count. The first `skipped` outputs are
// not needed: those of whole units of work are left as they are.
static void products(const Task* tasks, int count, int64_t ldc, bool add, bool exact_rows,
                     char* panels, int threads, int64_t skipped = 0) {
    bool few = exact_rows || tasks[0].x.count <= 16;
    int64_t unit = few ? FEW : PANEL, total = 0, room = panel_bytes(tasks[0].m->inputs);
    for (int i = 0; i < count; ++i)
        for (int p = 0; p < tasks[i].m->parts; ++p) total += ceil_div(tasks[i].m->rows[p], unit);
    int64_t begin = 0;
    for (int i = 0, p = 0; i < count && skipped > 0;) {
        int64_t rows = tasks[i].m->rows[p];
        begin += rows <= skipped ? ceil_div(rows, unit) : skipped / unit;
        skipped -= rows;
        if (++p == tasks[i].m->parts) ++i, p = 0;
    }
    parallel(total - begin, threads, [&](int64_t index, int thread) {
        index += begin;
        int i = 0, p = 0;
        int64_t first = 0;
        for (int64_t here; index >= (here = ceil_div(tasks[i].m->rows[p], unit)); index -= here) {
            first += tasks[i].m->rows[p];
            if (++p == tasks[i].m->parts) ++i, p = 0, first = 0;
        }
        run_unit(tasks[i], p, first, index, few, ldc, add, panels + thread * room);
    });
}
