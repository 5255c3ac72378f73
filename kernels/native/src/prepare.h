// Weight matrices, and input rows in the form that they are multiplied with. Formats of a weight
// [outputs, inputs]:
//   F32, BF16, HALF row by row, as a checkpoint stores it (HALF is float16); up to four matrices stacked
//   F8              row by row, the bits of e4m3 numbers; a float32 scale for `span` (128 or 1) outputs
//                   by 128 inputs
//   I8 I6 I5 I4     blocks of 16 outputs, "words" of four inputs of each of them: [inputs/4][16][4].
//     I8            one byte a code
//   T4 N4           the same; N4 has a table that fits unsigned 6 bits (given plus `zero`)
//     I4, T4, N4    two words share 64 bytes, the earlier in the low halves
//     I6            four words: two times 64 bytes as I4, then the upper two bits of each word in turn
//     I5            eight words: four times 64 bytes as I4, then the upper bit of each word in turn
// A code stands for the integer code - zero, in T4 and N4 for an entry of a table. Each `group` inputs of an
// output share a scale, and if `terms` an additive term: [outputs/16][inputs/group][16 or 32], scales
// before terms. They are bfloat16, float16 or float32, or signed bytes that are multiplied with the
// float16 or bfloat16 tops [outputs/16][inputs/span][16 or 32].
// For these, an input row is cut into groups of 32 (16 for groups of 16) and rounded to signed bytes,
// so that products are sums of integers (exact, in any order), scaled once a group.
#pragma once
#include "simd.h"

enum { F32 = 0, BF16 = 1, I8 = 2, I4 = 3, I5 = 4, I6 = 5, T4 = 6, N4 = 7, F8 = 8, HALF = 9 };
enum { Q8_0 = 16, Q4_K = 17, Q5_K = 18, Q6_K = 19 }; // row by row as in a GGUF file (stored.h)
enum { SCALE_BF16 = 0, SCALE_F16 = 1, SCALE_F32 = 2, SCALE_STEP_F16 = 3, SCALE_STEP_BF16 = 4 };

struct Matrix {
    int64_t format, inputs, group, parts;
    int64_t rows[4];
    const void* data[4];
    const void* scales;
    const uint16_t* tops;
    const int8_t* table;
    int64_t scale_kind, terms, zero, span;
};
INLINE int64_t outputs(const Matrix& m) {
    int64_t n = 0;
    for (int i = 0; i < m.parts; ++i) n += m.rows[i];
    return n;
}
INLINE bool integer(int64_t format) { return format >= I8 && format <= N4; }
INLINE bool in_file(int64_t format) { return format >= Q8_0; }
// Inputs that are rounded together.
INLINE int64_t piece_of(const Matrix& m) { return m.group == 16 ? 16 : 32; }

// Input rows in the form that a format multiplies. `words` are 32-bit words a row.
struct Rows {
    const char* data;
    int64_t count, words;
    const float* scale;  // [count][groups], integer formats
    const int32_t* sums; // [count][groups], of the rounded inputs
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
INLINE void round_piece(const float* x, int64_t n, int8_t* q, float* scale, int32_t* total) {
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
    int32_t* sums;
    int64_t format, inputs, piece;
};
// Of formats that multiply rows in the same form, the first.
INLINE int64_t row_format(int64_t format) {
    return integer(format) || in_file(format) ? I8 : format == F8 || format == HALF ? F32 : format;
}
static Prepared room(const Matrix& m, int64_t count, char* scratch) {
    int64_t format = row_format(m.format), piece = format == I8 ? piece_of(m) : 0;
    int64_t groups = piece ? m.inputs / piece : 0;
    Prepared p = {scratch, nullptr, nullptr, format, m.inputs, piece};
    int64_t body = (count * m.inputs * (piece ? 1 : format == BF16 ? 2 : 4) + 63) & ~63;
    p.scale = (float*)(scratch + body);
    p.sums = (int32_t*)(p.scale + count * groups);
    return p;
}
INLINE bool same_form(const Prepared& p, const Prepared& q) {
    return p.format == q.format && p.inputs == q.inputs && p.piece == q.piece;
}
INLINE void prepare_row(const Prepared& p, int64_t r, const float* x) {
    if (p.format == F32) {
        memcpy(p.data + r * p.inputs * 4, x, p.inputs * 4);
    } else if (p.format == BF16) {
        uint16_t* to = (uint16_t*)p.data + r * p.inputs;
        for (int64_t i = 0; i < p.inputs; i += 16) store_bf16(to + i, load(x + i));
    } else {
        int64_t groups = p.inputs / p.piece;
        for (int64_t g = 0; g < groups; ++g)
            round_piece(x + g * p.piece, p.piece, (int8_t*)p.data + r * p.inputs + g * p.piece,
                        p.scale + r * groups + g, p.sums + r * groups + g);
    }
}
static Rows rows_of(const Prepared& p, int64_t count) {
    int64_t per = p.piece ? 4 : p.format == BF16 ? 2 : 1;
    return {p.data, count, p.inputs / per, p.scale, p.sums, p.piece ? p.inputs / p.piece : 0};
}

// The addresses of up to 12 rows, `stride` bytes apart, of which each step moves on by some bytes. Three
// rows share a pointer, because there are not registers for more; `fix` keeps the compiler from
// giving each its own all the same.
struct Lines {
    const char *a, *b, *c, *d;
    int64_t stride;
    INLINE_MEMBER Lines(const void* first, int64_t stride) : stride(stride) {
        a = (const char*)first, b = a + 3 * stride, c = b + 3 * stride, d = c + 3 * stride;
    }
    INLINE_MEMBER void fix() { asm("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d)); }
    INLINE_MEMBER const char* row(int r) const {
        return (r < 3 ? a : r < 6 ? b : r < 9 ? c : d) + r % 3 * stride;
    }
    INLINE_MEMBER void move(int64_t bytes) { a += bytes, b += bytes, c += bytes, d += bytes; }
};
