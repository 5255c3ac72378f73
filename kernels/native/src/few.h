// Products of few input rows: each weight is read from memory once, in the order in which it lies
// there, for up to ROWS input rows, and the sums of a row are the same whatever the other rows are.
#pragma once
#include "codes.h"

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

constexpr int ROWS = PARTS == 1 ? 8 : PARTS == 2 ? 4 : 2; // input rows at once
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

#include "pairs.h"

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

// e4m3 weights row by row: M input rows of float32, N outputs, lanes along the inputs.
template <int M, int N>
static inline void few_e4m3(const float* a, const Matrix& m, int64_t output, float* c, int64_t ldc,
                            bool add) {
    int64_t inputs = m.inputs, blocks = ceil_div(inputs, 128);
    const uint8_t* b = (const uint8_t*)m.data[0] + output * inputs;
    const float* scale = (const float*)m.scales;
    F16 acc[M][N];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) acc[r][j] = zero();
    for (int64_t g = 0; g < blocks; ++g) {
        F16 part[M][N];
        for (int r = 0; r < M; ++r)
            for (int j = 0; j < N; ++j) part[r][j] = zero();
        for (int64_t k = g * 128, end = least(inputs, k + 128); k < end; k += 16) {
            F16 w[N];
            for (int j = 0; j < N; ++j) {
                w[j] = load_e4m3(b + j * inputs + k);
                if (k % 64 == 0) ask(b + k * N + 64 * j);
            }
            for (int r = 0; r < M; ++r) {
                F16 x = load(a + r * inputs + k);
                for (int j = 0; j < N; ++j) part[r][j] = fma(w[j], x, part[r][j]);
            }
        }
        for (int j = 0; j < N; ++j) {
            F16 by = set1(scale[(output + j) / m.span * blocks + g] * 256.0f);
            for (int r = 0; r < M; ++r) acc[r][j] = fma(part[r][j], by, acc[r][j]);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) {
            float s = sum(acc[r][j]);
            c[r * ldc + j] = add ? c[r * ldc + j] + s : s;
        }
}

// float16 weights row by row: M input rows of float32, N outputs, lanes along the inputs.
template <int M, int N>
static inline void few_half(const float* a, int64_t inputs, const uint16_t* b, float* c, int64_t ldc,
                            bool add) {
    F16 acc[M][N];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) acc[r][j] = zero();
    for (int64_t k = 0; k < inputs; k += 16) {
        F16 w[N];
        for (int j = 0; j < N; ++j) {
            w[j] = load_half(b + j * inputs + k);
            if (k % 32 == 0) ask(b + k * N + 32 * j);
        }
        for (int r = 0; r < M; ++r) {
            F16 x = load(a + r * inputs + k);
            for (int j = 0; j < N; ++j) acc[r][j] = fma(w[j], x, acc[r][j]);
        }
    }
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < N; ++j) {
            float s = sum(acc[r][j]);
            c[r * ldc + j] = add ? c[r * ldc + j] + s : s;
        }
}

// Quantised weights: M input rows, B blocks of 16 outputs, A inputs rounded together.
template <int F, int A, int M, int B>
static inline void few_int(const Rows& x, int64_t r0, const Matrix& m, int64_t block, float* c,
                           int64_t ldc, int64_t n, bool add) {
    constexpr int BYTES = A * 2 * Code<F>::BITS;
    int64_t groups = x.groups, between = groups * BYTES;
    const char *a = x.data + r0 * m.inputs, *b = (const char*)m.data[0] + block * between;
    const float* scale = x.scale + r0 * groups;
    const int32_t* sums = x.sums + r0 * groups;
    const ScaleTable scales(m);
    const I16 table = table_of<F>(m);
    const int32_t over = excess<F>(m);
    F16 acc[M][B];
    for (int r = 0; r < M; ++r)
        for (int j = 0; j < B; ++j) acc[r][j] = zero();
    for (int64_t g = 0; g < groups; ++g) {
        I16 dots[M][B], part[M][B];
        for (int r = 0; r < M; ++r)
            for (int j = 0; j < B; ++j)
                dots[r][j] = set1i(-over * sums[r * groups + g]), part[r][j] = set1i(0);
        const char *bg = b + g * BYTES, *ag = a + g * A, *ahead = b + g * BYTES * B;
        for (int k = 0; k < BYTES * B; k += 64) ask(ahead + k);
UNROLLED
        for (int k = 0; k < A / 4; ++k) {
            I16 w[B];
            for (int j = 0; j < B; ++j) w[j] = code_word<F>(bg + j * between, k, table);
            for (int r = 0; r < M; ++r) {
                I16 v = set1i(word(ag + r * m.inputs + 4 * k));
                for (int j = 0; j < B; ++j) step<F>(dots[r][j], part[r][j], w[j], v, k, A / 4);
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
        case 3: ONE((ROWS < 3 ? 1 : 3)); break;       \
        case 4: ONE((ROWS < 4 ? 1 : 4)); break;       \
        case 5: ONE((ROWS < 5 ? 1 : 5)); break;       \
        case 6: ONE((ROWS < 5 ? 1 : 6)); break;       \
        case 7: ONE((ROWS < 5 ? 1 : 7)); break;       \
        default: ONE((ROWS < 8 ? 1 : 8));             \
        }                                             \
        r += left;                                    \
    }

// The same with fewer variants, for the many formats of integers.
#define FEW_INT_ROWS(ONE)                                                     \
    for (int64_t r = 0; r < count;) {                                         \
        int64_t left = count - r;                                             \
        if (ROWS >= 8 && left >= 8) { ONE((ROWS < 8 ? 1 : 8)); r += 8; }      \
        else if (ROWS >= 4 && left >= 4) { ONE((ROWS < 4 ? 1 : 4)); r += 4; } \
        else if (left >= 2) { ONE(2); r += 2; }                               \
        else { ONE(1); r += 1; }                                              \
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

static inline void few_e4m3_outputs(const Task& t, int64_t j, int64_t ldc, bool add) {
    int64_t count = t.x.count, end = least(t.m->rows[0], j + FEW);
    const float* a = (const float*)t.x.data;
#define ONE(M) few_e4m3<M, 1>(a + r * t.m->inputs, *t.m, j, t.out + r * ldc + j, ldc, add)
    for (; j < end; ++j) FEW_INT_ROWS(ONE)
#undef ONE
}

// Outputs `j` to j + FEW of one part of a float16 matrix.
static inline void few_half_outputs(const Task& t, int part, int64_t first, int64_t j, int64_t ldc,
                                    bool add) {
    int64_t count = t.x.count, inputs = t.m->inputs, end = least(t.m->rows[part], j + FEW);
    const float* a = (const float*)t.x.data;
    const uint16_t* b = (const uint16_t*)t.m->data[part];
    float* c = t.out + first;
    constexpr int N = PARTS == 1 ? 2 : 1;
#define ONE(M) few_half<M, N>(a + r * inputs, inputs, b + j * inputs, c + r * ldc + j, ldc, add)
    for (; j + N <= end; j += N) FEW_INT_ROWS(ONE)
#undef ONE
#define ONE(M) few_half<M, 1>(a + r * inputs, inputs, b + j * inputs, c + r * ldc + j, ldc, add)
    for (; j < end; ++j) FEW_INT_ROWS(ONE)
#undef ONE
}

// Outputs `i` FEW to (i + 1) FEW of a quantised matrix.
template <int F, int A>
static inline void few_integers(const Task& t, int64_t i, int64_t ldc, bool add) {
    const Matrix& m = *t.m;
    int64_t count = t.x.count, block = i * FEW / 16, n = m.rows[0] - i * FEW;
    float* c = t.out + i * FEW;
#if defined(__AVX2__) && !defined(__AVX512F__)
    for (int64_t end = block + least(FEW / 16, ceil_div(n, 16)); block < end; ++block, c += 16, n -= 16)
        for (int64_t r = 0, left; (left = count - r) > 0; r += least(4, left)) {
            float* to = c + r * ldc;
            if (left >= 4) few_pairs<F, A, 4>(t.x, r, m, block, to, ldc, n, add);
            else if (left == 3) few_pairs<F, A, 3>(t.x, r, m, block, to, ldc, n, add);
            else if (left == 2) few_pairs<F, A, 2>(t.x, r, m, block, to, ldc, n, add);
            else few_pairs<F, A, 1>(t.x, r, m, block, to, ldc, n, add);
        }
    return;
#endif
    constexpr int B = PARTS == 1 ? 2 : 1;
#define ONE(M)                                                                               \
    if (B == 2 && n > 16 && M > 1) {                                                         \
        few_int<F, A, M, B>(t.x, r, m, block, c + r * ldc, ldc, n, add);                     \
    } else {                                                                                 \
        few_int<F, A, M, 1>(t.x, r, m, block, c + r * ldc, ldc, n, add);                     \
        if (n > 16)                                                                          \
            few_int<F, A, M, 1>(t.x, r, m, block + 1, c + r * ldc + 16, ldc, n - 16, add);   \
    }
    FEW_INT_ROWS(ONE)
#undef ONE
}

// CALL(F, A) for the format of a quantised matrix.
#define BY_FORMAT(m, CALL)                                                                   \
    switch ((m).format) {                                                                    \
    case I8: if (piece_of(m) == 16) { CALL(I8, 16); } else { CALL(I8, 32); } break;          \
    case I6: if (piece_of(m) == 16) { CALL(I6, 16); } else { CALL(I6, 32); } break;          \
    case I5: CALL(I5, 32); break;                                                            \
    case N4: if (piece_of(m) == 16) { CALL(N4, 16); } else { CALL(N4, 32); } break;          \
    case T4: if (piece_of(m) == 16) { CALL(T4, 16); } else { CALL(T4, 32); } break;          \
    default: if (piece_of(m) == 16) { CALL(I4, 16); } else { CALL(I4, 32); }                 \
    }
