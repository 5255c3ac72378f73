// Weight matrices, and input rows in the form that they are multiplied with. Formats of a weight
// [outputs, inputs]:
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
    const int32_t* start; // [count][groups], what takes back the offset of the weight's bytes
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
INLINE void quantize_group(const float* x, int64_t n, int32_t offset, int8_t* q, float* scale,
                           int32_t* start) {
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
    *start = -offset * t;
}

struct Prepared {
    char* data;
    float* scale;
    int32_t* start;
    int64_t format, inputs, group;
};
static Prepared room(const Matrix& m, int64_t count, char* scratch) {
    int64_t groups = integer(m.format) ? m.inputs / m.group : 0;
    Prepared p = {scratch, nullptr, nullptr, m.format, m.inputs, m.group};
    int64_t body = (count * m.inputs * (integer(m.format) ? 1 : m.format == BF16 ? 2 : 4) + 63) & ~63;
    p.scale = (float*)(scratch + body);
    p.start = (int32_t*)(p.scale + count * groups);
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
            quantize_group(x + g * p.group, p.group, p.format == I4 ? 8 : 128,
                           (int8_t*)p.data + r * p.inputs + g * p.group,
                           p.scale + r * groups + g, p.start + r * groups + g);
    }
}
static Rows rows_of(const Prepared& p, int64_t count) {
    int64_t per = integer(p.format) ? 4 : p.format == BF16 ? 2 : 1;
    return {p.data, count, p.inputs / per, p.scale, p.start,
            integer(p.format) ? p.inputs / p.group : 0};
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
