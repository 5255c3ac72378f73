// Products of few input rows: each weight is read from memory once, in the order in which it lies
// there, for up to ROWS input rows, and the sums of a row are the same whatever the other rows are.
#pragma once
#include "prepare.h"

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

constexpr int ROWS = PARTS == 1 ? 8 : 4; // input rows at once
// Bytes from what is multiplied to what is asked for, into the second cache: measured, see
// docs/performance.md. Several rows of a weight are multiplied at once, but asked for one line after
// the other as they lie in memory, because that is what memory delivers fastest.
#ifndef AHEAD
constexpr int64_t AHEAD = 16384;
#endif
INLINE void ask(const void* p) { __builtin_prefetch((const char*)p + AHEAD, 0, 2); }

INLINE void put(float* to, F16 x, int64_t n, bool add) {
    if (n >= 16) {
        store(to, add ? load(to) + x : x);
    } else {
        float t[16];
        store(t, x);
        for (int64_t i = 0; i < n; ++i) to[i] = add ? to[i] + t[i] : t[i];
    }
}

// Weights row by row: M input rows, N outputs, lanes along the inputs.
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
            ask(b + k * N + 16 * j);
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

// Quantised weights: M input rows, B blocks of 16 outputs. A sum of integers is exact in any order:
// two at once where there is one row, since each step of a sum waits for the one before.
template <bool FOUR, int M, int B>
static inline void few_int(const Rows& x, int64_t r0, const Matrix& m, int64_t block, float* c,
                           int64_t ldc, int64_t n, bool add) {
    constexpr int U = M * B == 1 ? 2 : 1, BITS = FOUR ? 4 : 8;
    int64_t groups = x.groups, lines = m.group * BITS / 32, between = m.inputs * BITS * 2;
    const char *a = x.data + r0 * m.inputs, *b = (const char*)m.data[0] + block * between;
    const float* scale = x.scale + r0 * groups;
    const int32_t* start = x.start + r0 * groups;
    const uint16_t* s = m.scales + block * groups * 16;
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    for (int64_t g = 0; g < groups; ++g) {
        I16 dots[M][B][U];
        for (int r = 0; r < M; ++r)
            for (int j = 0; j < B; ++j)
                for (int u = 0; u < U; ++u)
                    dots[r][j][u] = set1i(u ? 0 : start[r * groups + g]);
        const char *bg = b + g * lines * 64, *ag = a + g * m.group, *ahead = b + g * lines * 64 * B;
        for (int64_t k = 0; k < lines; k += U)
            for (int u = 0; u < U; ++u) {
                I16 w[B], v[B];
                for (int j = 0; j < B; ++j) {
                    w[j] = loadi(bg + j * between + (k + u) * 64);
                    ask(ahead + ((k + u) * B + j) * 64);
                    if (FOUR) v[j] = mask(shift(w[j], 4), 0x0f0f0f0f), w[j] = mask(w[j], 0x0f0f0f0f);
                }
                for (int r = 0; r < M; ++r) {
                    const char* at = ag + r * m.inputs + (k + u) * (32 / BITS);
                    I16 first = set1i(word(at));
                    for (int j = 0; j < B; ++j) dots[r][j][u] = dot4(dots[r][j][u], w[j], first);
                    if (!FOUR) continue;
                    I16 second = set1i(word(at + 4));
                    for (int j = 0; j < B; ++j) dots[r][j][u] = dot4(dots[r][j][u], v[j], second);
                }
            }
        for (int j = 0; j < B; ++j) {
            F16 ws = load_bf16(s + (j * groups + g) * 16);
            for (int r = 0; r < M; ++r) {
                I16 dot = dots[r][j][0];
                for (int u = 1; u < U; ++u) dot = dot + dots[r][j][u];
                acc[r][j] = fma(to_float(dot) * set1(scale[r * groups + g]), ws, acc[r][j]);
            }
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j)
            if (n > 16 * j) put(c + r * ldc + 16 * j, acc[r][j], n - 16 * j, add);
}

// One product of a call: several that share their rows run as one, so that threads wait once.
struct Task {
    const Matrix* m;
    Rows x;
    float* out; // [count][ldc]
};

// ONE(M) for all rows `r` below `count`, up to ROWS at a time.
#define FEW_ROWS(ONE)                                 \
    for (int64_t r = 0; r < count;) {                 \
        int64_t left = least(ROWS, count - r);        \
        switch (left) {                               \
        case 1: ONE(1); break;                        \
        case 2: ONE(2); break;                        \
        case 3: ONE(3); break;                        \
        case 4: ONE(4); break;                        \
        case 5: ONE((ROWS < 5 ? 1 : 5)); break;       \
        case 6: ONE((ROWS < 5 ? 1 : 6)); break;       \
        case 7: ONE((ROWS < 5 ? 1 : 7)); break;       \
        default: ONE((ROWS < 5 ? 1 : 8));             \
        }                                             \
        r += left;                                    \
    }

constexpr int64_t FEW = 32; // outputs a unit of work

// N outputs at once, from `j` as far as they go.
template <class S, int N>
static inline void few_outputs(const Rows& x, const int32_t* b, float* c, int64_t ldc, int64_t& j,
                               int64_t end, bool add) {
    int64_t count = x.count, words = x.words;
#define ONE(M)                                                                               \
    few_float<S, M, (M > 4 && N > 2 ? 1 : N)>((const int32_t*)x.data + r * words, words,     \
                                              b + j * words, c + r * ldc + j, ldc, add)
    for (; j + N <= end; j += N) FEW_ROWS(ONE)
#undef ONE
}
// Outputs `j` to j + FEW of one part of a plain matrix.
template <class S>
static inline void few_plain(const Task& t, int part, int64_t first, int64_t j, int64_t ldc, bool add) {
    const Rows& x = t.x;
    const int32_t* b = (const int32_t*)t.m->data[part];
    float* c = t.out + first;
    int64_t end = least(t.m->rows[part], j + FEW);
    // As many as the registers hold beside the rows.
    if (PARTS == 1 && x.count <= 4) few_outputs<S, 4>(x, b, c, ldc, j, end, add);
    if (PARTS == 1) few_outputs<S, 2>(x, b, c, ldc, j, end, add);
    few_outputs<S, 1>(x, b, c, ldc, j, end, add);
}

// Outputs `i` FEW to (i + 1) FEW of a quantised matrix.
template <bool FOUR>
static inline void few_integers(const Task& t, int64_t i, int64_t ldc, bool add) {
    const Matrix& m = *t.m;
    int64_t count = t.x.count, block = i * FEW / 16, n = m.rows[0] - i * FEW;
    float* c = t.out + i * FEW;
    constexpr int B = PARTS == 1 ? 2 : 1;
#define ONE(M)                                                                               \
    if (B == 2 && n > 16 && M > 1) {                                                         \
        few_int<FOUR, M, B>(t.x, r, m, block, c + r * ldc, ldc, n, add);                     \
    } else {                                                                                 \
        few_int<FOUR, M, 1>(t.x, r, m, block, c + r * ldc, ldc, n, add);                     \
        if (n > 16)                                                                          \
            few_int<FOUR, M, 1>(t.x, r, m, block + 1, c + r * ldc + 16, ldc, n - 16, add);   \
    }
    FEW_ROWS(ONE)
#undef ONE
}
