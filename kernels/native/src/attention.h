// Causal grouped-query attention over pages of keys and values.
#pragma once
#include "delta.h"

constexpr int64_t PAGE = 256;   // positions a page, and a block of the softmax
constexpr int64_t SPAN = 2048;  // positions packed at once for many queries
constexpr int64_t QUERIES = 48; // queries a unit of work

// Keys and values of one sequence and layer: position p of KV head j has its key at
// page[p / PAGE] + keys + (j*PAGE + p % PAGE) * dim elements, its value at `values` instead.
struct Cache {
    char* const* pages;
    int64_t keys, values; // bytes from the start of a page
    int64_t dim, kv_heads, heads;
    bool bf16; // what is multiplied: bfloat16, or float32
    bool eight; // stored as bytes: of each head PAGE rows of codes, then PAGE scales in float32
};
INLINE int64_t row_bytes(const Cache& c) { return c.eight ? c.dim : c.dim * (c.bf16 ? 2 : 4); }
INLINE int64_t head_bytes(const Cache& c) { return PAGE * (row_bytes(c) + (c.eight ? 4 : 0)); }
INLINE char* key_at(const Cache& c, int64_t head, int64_t position) {
    return c.pages[position / PAGE] + c.keys + head * head_bytes(c) + position % PAGE * row_bytes(c);
}
// The scale of the row of codes that key_at or value_at gives.
INLINE float* scale_at(const Cache& c, char* row, int64_t position) {
    return (float*)(row + (PAGE - position % PAGE) * c.dim) + position % PAGE;
}
INLINE char* value_at(const Cache& c, int64_t head, int64_t position) {
    return key_at(c, head, position) - c.keys + c.values;
}

// Rounds a row to codes and a scale, once and for all: the largest becomes 127. Where a number is no
// number the scale is none.
INLINE void store_codes(const Cache& c, char* to, int64_t position, const float* x) {
    F16 top = zero(), bad = zero();
    for (int64_t i = 0; i < c.dim; i += 16) {
        F16 v = load(x + i);
        top = max(top, absolute(v));
        bad = bad + (v - v);
    }
    float most = largest(top), up = most > 0 ? 127.0f / most : 0.0f;
    for (int64_t i = 0; i < c.dim; i += 16) {
        F16 v = load(x + i) * set1(up) + set1(12582912.0f); // rounds to the nearest, ties to even
        I16 w;
        EACH w.v[h] = (vi)v.v[h] - 0x4b400000;
        store_bytes((int8_t*)to + i, w);
    }
    *scale_at(c, to, position) = most / 127.0f + sum(bad);
}

// 16 C dimensions of the values of one block, summed with the weights p.
template <int G, int C>
static inline void weigh(const Cache& c, const char* values, int64_t d, int64_t count,
                         const float (*p)[PAGE], float* out, const char* next) {
    F16 acc[G][C];
    for (int g = 0; g < G; ++g)
        for (int j = 0; j < C; ++j) acc[g][j] = zero();
    int64_t size = c.bf16 ? 2 : 4;
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t k = 0; next && k < 16 * C * size; k += 64)
            __builtin_prefetch(next + (i * c.dim + d) * size + k, 0, 2);
        for (int j = 0; j < C; ++j) {
            F16 v = load_as(values, i * c.dim + d + 16 * j, c.bf16);
            for (int g = 0; g < G; ++g) acc[g][j] = fma(set1(p[g][i]), v, acc[g][j]);
        }
    }
    for (int g = 0; g < G; ++g)
        for (int j = 0; j < C; ++j) store(out + g * (c.dim + 2) + d + 16 * j, acc[g][j]);
}

// Turns `count` scores into weights; the largest score and their sum go to `stats`.
INLINE void weights_of(float* p, int64_t count, float* stats) {
    float most = p[0];
    for (int64_t i = 1; i < count; ++i) most = p[i] > most ? p[i] : most;
    for (int64_t i = count; i & 15; ++i) p[i] = -INFINITY;
    F16 total = zero(), top = set1(most);
    for (int64_t i = 0; i < count; i += 16) {
        F16 e = exp_below(load(p + i) - top);
        store(p + i, e);
        if (i + 16 <= count) total = total + e;
    }
    float l = sum(total);
    for (int64_t i = count & ~15; i < count; ++i) l += p[i];
    stats[0] = most;
    stats[1] = l;
}

// One block of positions for the queries of one KV head that stand at the same place.
// q [group] rows of `dim`, scaled, in the dtype of the cache. Partial result: [group][dim + 2].
// Memory is asked for the values while the keys are multiplied, and for the keys of the `next` block,
// if there is one, while the values are.
template <class S, int G>
static inline void attend_block(const Cache& c, int64_t head, int64_t first, int64_t count,
                                const int32_t* q, float* out, const char* next) {
    int64_t words = c.bf16 ? c.dim / 2 : c.dim;
    float p[G][PAGE];
    const char *keys = key_at(c, head, first), *values = value_at(c, head, first);
    for (int64_t i = 0; i < count; ++i) {
        F16 acc[G];
        for (int g = 0; g < G; ++g) acc[g] = zero();
        const int32_t* key = (const int32_t*)keys + i * words;
        for (int64_t k = 0; k < words; k += 16) {
            ask(key + k);
            __builtin_prefetch(values + (i * words + k) * 4, 0, 2);
        }
        for (int64_t k = 0; k < words; k += 16) {
            I16 w = loadi(key + k);
            for (int g = 0; g < G; ++g) acc[g] = S::step(acc[g], w, loadi(q + g * words + k));
        }
        for (int g = 0; g < G; ++g) p[g][i] = sum(acc[g]);
    }
    for (int g = 0; g < G; ++g) weights_of(p[g], count, out + g * (c.dim + 2) + c.dim);
    // Four lines of a value at a time: each is in the nearest cache by now, and used whole.
    constexpr int C = PARTS == 1 ? 4 : 1;
    int64_t d = 0;
    for (; d + 16 * C <= c.dim; d += 16 * C) weigh<G, C>(c, values, d, count, p, out, next);
    for (; d < c.dim; d += 16) weigh<G, 1>(c, values, d, count, p, out, next);
}
template <class S>
static void attend_group(const Cache& c, int64_t head, int64_t first, int64_t count,
                         const int32_t* q, float* out, const char* next) {
    int64_t words = c.bf16 ? c.dim / 2 : c.dim, left = c.heads / c.kv_heads;
#define ONE(G) { attend_block<S, G>(c, head, first, count, q, out, next); \
                 q += G * words; out += G * (c.dim + 2); left -= G; }
    while (left > 0) {
        if (left >= 6) ONE(6) else if (left >= 4) ONE(4) else if (left >= 2) ONE(2) else ONE(1)
    }
#undef ONE
}

// attend_block and attend_group over codes; q is float32. Each code is made a number once for all
// queries, and scales meet scores and weights instead of rows.
template <int G>
static inline void attend_codes_block(const Cache& c, int64_t head, int64_t first, int64_t count,
                                      const float* q, float* out, const char* next) {
    float p[G][PAGE];
    const char *keys = key_at(c, head, first), *values = value_at(c, head, first);
    const float* key_scales = scale_at(c, (char*)keys, first);
    const float* value_scales = scale_at(c, (char*)values, first);
    for (int64_t i = 0; i < count; ++i) {
        F16 acc[G];
        for (int g = 0; g < G; ++g) acc[g] = zero();
        for (int64_t k = 0; k < c.dim; k += 64) __builtin_prefetch(values + i * c.dim + k, 0, 2);
        for (int64_t k = 0; k < c.dim; k += 16) {
            F16 w = load_steps((const int8_t*)keys + i * c.dim + k);
            for (int g = 0; g < G; ++g) acc[g] = fma(w, load(q + g * c.dim + k), acc[g]);
        }
        for (int g = 0; g < G; ++g) p[g][i] = sum(acc[g]) * key_scales[i];
    }
    for (int g = 0; g < G; ++g) {
        weights_of(p[g], count, out + g * (c.dim + 2) + c.dim);
        for (int64_t i = 0; i < count; ++i) p[g][i] *= value_scales[i];
    }
    constexpr int C = PARTS == 1 ? 2 : 1;
    for (int64_t d = 0; d < c.dim; d += 16 * C) {
        F16 acc[G][C];
        for (int g = 0; g < G; ++g)
            for (int j = 0; j < C; ++j) acc[g][j] = zero();
        for (int64_t i = 0; i < count; ++i) {
            if (next && d % 64 == 0) __builtin_prefetch(next + i * c.dim + d, 0, 2);
            for (int j = 0; j < C; ++j) {
                F16 v = load_steps((const int8_t*)values + i * c.dim + d + 16 * j);
                for (int g = 0; g < G; ++g) acc[g][j] = fma(set1(p[g][i]), v, acc[g][j]);
            }
        }
        for (int g = 0; g < G; ++g)
            for (int j = 0; j < C; ++j) store(out + g * (c.dim + 2) + d + 16 * j, acc[g][j]);
    }
}
static void attend_codes(const Cache& c, int64_t head, int64_t first, int64_t count, const float* q,
                         float* out, const char* next) {
    int64_t left = c.heads / c.kv_heads;
#define ONE(G) { attend_codes_block<G>(c, head, first, count, q, out, next); \
                 q += G * c.dim; out += G * (c.dim + 2); left -= G; }
    while (left > 0) {
        if (left >= 6) ONE(6) else if (left >= 4) ONE(4) else if (left >= 2) ONE(2) else ONE(1)
    }
#undef ONE
}

// Joins the partial results of one query and head, `step` floats apart, in their order.
INLINE void join_blocks(const float* part, int64_t blocks, int64_t step, int64_t dim, float* out) {
    float most = -INFINITY;
    for (int64_t b = 0; b < blocks; ++b)
        most = part[b * step + dim] > most ? part[b * step + dim] : most;
    float total = 0;
    for (int64_t d = 0; d < dim; d += 16) store(out + d, zero());
    for (int64_t b = 0; b < blocks; ++b) {
        const float* from = part + b * step;
        float e = expf(from[dim] - most);
        total += e * from[dim + 1];
        for (int64_t d = 0; d < dim; d += 16)
            store(out + d, fma(load(from + d), set1(e), load(out + d)));
    }
    F16 by = set1(1.0f / total);
    for (int64_t d = 0; d < dim; d += 16) store(out + d, load(out + d) * by);
}

// ---- many queries of one sequence: keys and values are packed for tiles, a span at a time ----

// Packed keys of a page: [256/16][dim words][16]; values: [dim/16][256 positions as words][16].
static int64_t packed_bytes(const Cache& c) {
    return SPAN * (c.dim * (c.bf16 ? 2 : 4) + 4) * 2 * c.kv_heads;
}
// The codes of a page are packed as the numbers they are, which bfloat16 holds exactly; their scales
// [256] of keys and of values are laid beside, 0 behind the last position.
static void unpack_codes(const Cache& c, const int8_t* codes, int64_t count, char* to) {
    for (int64_t i = 0; i < count * c.dim; i += 16)
        c.bf16 ? store_bf16((uint16_t*)to + i, load_steps(codes + i))
               : store((float*)to + i, load_steps(codes + i));
}
static void pack_codes(const Cache& c, const int8_t* from, int64_t count, char* values) {
    int64_t size = c.bf16 ? 2 : 4;
    for (int64_t d = 0; d < c.dim; d += 16) {
        char* to = values + d * PAGE * size;
        for (int64_t i = 0; i < PAGE; i += c.bf16 ? 2 : 1) {
            F16 v = i < count ? load_steps(from + i * c.dim + d) : zero();
            if (!c.bf16) {
                memcpy(to + i * 64, &v, 64);
                continue;
            }
            F16 w = i + 1 < count ? load_steps(from + (i + 1) * c.dim + d) : zero();
            uint16_t a[16], b[16], pair[32];
            store_bf16(a, v);
            store_bf16(b, w);
            for (int j = 0; j < 16; ++j) pair[2 * j] = a[j], pair[2 * j + 1] = b[j];
            memcpy(to + i * 32, pair, 64);
        }
    }
}
static void pack_scales(const Cache& c, int64_t head, int64_t first, int64_t count, float* keys,
                        float* values) {
    for (int64_t i = 0; i < PAGE; ++i) keys[i] = values[i] = 0;
    memcpy(keys, scale_at(c, key_at(c, head, first), first), count * 4);
    memcpy(values, scale_at(c, value_at(c, head, first), first), count * 4);
}
static void pack_page(const Cache& c, int64_t head, int64_t first, int64_t count, char* keys,
                      char* values) {
    int64_t words = c.bf16 ? c.dim / 2 : c.dim, size = c.bf16 ? 2 : 4;
    alignas(64) char wide[16 * 1024 * 4];
    for (int64_t b = 0; b < PAGE; b += 16) {
        int64_t rows = least(16, count - b);
        if (rows <= 0) {
            memset(keys + b * words * 4, 0, words * 64);
            continue;
        }
        const char* from = key_at(c, head, first + b);
        if (c.eight) {
            unpack_codes(c, (const int8_t*)from, rows, wide);
            from = wide;
        }
        turn((const int32_t*)from, words, rows, words, (int32_t*)keys + b * words);
    }
    if (c.eight) {
        pack_codes(c, (const int8_t*)value_at(c, head, first), count, values);
        return;
    }
    const char* from = value_at(c, head, first);
    for (int64_t d = 0; d < c.dim; d += 16) {
        char* to = values + d * PAGE * size;
        for (int64_t i = 0; i < PAGE; i += c.bf16 ? 2 : 1) {
            if (!c.bf16) {
                F16 v = i < count ? load((const float*)from + i * c.dim + d) : zero();
                memcpy(to + i * 64, &v, 64);
                continue;
            }
            uint16_t pair[32];
            const uint16_t* v = (const uint16_t*)from + i * c.dim + d;
            for (int j = 0; j < 16; ++j) {
                pair[2 * j] = i < count ? v[j] : 0;
                pair[2 * j + 1] = i + 1 < count ? v[c.dim + j] : 0;
            }
            memcpy(to + i * 32, pair, 64);
        }
    }
}

// Queries `rows` of one head, at positions `at`, at + 1, ... over the packed pages of one span.
// q rows lie `q_ld` words apart; out rows `ld` floats apart hold the running sum, most and total
// the running softmax (`heads` apart). Both are worked on in rows of their own: those of several
// heads lie a power of two apart and would push each other out of the nearest cache.
template <class S>
static void attend_span(const Cache& c, const int32_t* q, int64_t q_ld, int64_t rows, int64_t at,
                        int64_t first, int64_t end, const char* keys, const char* values,
                        const float* scales, float* out, int64_t ld, float* most, float* total, float* scratch) {
    int64_t words = c.bf16 ? c.dim / 2 : c.dim, size = c.bf16 ? 2 : 4;
    float* s = scratch;
    char* p = (char*)(scratch + QUERIES * PAGE);
    int32_t* own = (int32_t*)(scratch + 2 * QUERIES * PAGE);
    float *sums = scratch + QUERIES * (2 * PAGE + words), factor[QUERIES];
    for (int64_t r = 0; r < rows; ++r) {
        memcpy(own + r * words, q + r * q_ld, words * 4);
        memcpy(sums + r * c.dim, out + r * ld, c.dim * 4);
    }
    for (int64_t b = first; b < end && b < at + rows; b += PAGE) {
        int64_t count = least(PAGE, at + rows - b), padded = (count + 31) & ~31;
        const char* kb = keys + (b - first) * words * 4;
        const char* vb = values + (b - first) * c.dim * size;
        // Columns outside: the panel of 32 stays in the nearest cache for all rows.
        for (int64_t j = 0; j < padded; j += 32)
            multiply<S>(own, words, 1, rows, words, kb + j * words * 4, words * 64, 64, s + j, PAGE, 32,
                        false);
        for (int64_t r = 0; r < rows; ++r) {
            int64_t seen = least(count, at + r + 1 - b);
            float* row = s + r * PAGE;
            if (c.eight)
                for (int64_t i = 0; i < padded; i += 16)
                    store(row + i, load(row + i) * load(scales + b - first + i));
            float old = most[r * c.heads];
            int64_t whole = seen > 0 ? seen & ~15 : 0;
            for (int64_t i = seen > 0 ? seen : 0; i < padded; ++i) row[i] = -INFINITY;
            F16 m = set1(old);
            for (int64_t i = 0; i < padded; i += 16) m = max(m, load(row + i));
            float top = largest(m);
            factor[r] = old == top ? 1.0f : expf(old - top);
            F16 sum_e = zero(), t = set1(top);
            for (int64_t i = 0; i < padded; i += 16) {
                F16 e = exp_below(load(row + i) - t);
                if (i >= whole) { // exp of -inf is a tiny number on some machines
                    float kept[16];
                    store(kept, e);
                    for (int64_t x = 0; x < 16; ++x) kept[x] = i + x < seen ? kept[x] : 0;
                    e = load(kept);
                }
                sum_e = sum_e + e;
                if (c.eight) e = e * load(scales + SPAN + b - first + i);
                if (c.bf16) store_bf16((uint16_t*)p + r * PAGE + i, e);
                else store((float*)p + r * PAGE + i, e);
            }
            most[r * c.heads] = top;
            total[r * c.heads] = total[r * c.heads] * factor[r] + sum(sum_e);
            if (factor[r] != 1.0f)
                for (int64_t d = 0; d < c.dim; d += 16)
                    store(sums + r * c.dim + d, load(sums + r * c.dim + d) * set1(factor[r]));
        }
        for (int64_t d = 0; d < c.dim; d += 32)
            multiply<S>((const int32_t*)p, c.bf16 ? PAGE / 2 : PAGE, 1, rows,
                        c.bf16 ? padded / 2 : padded, vb + d * PAGE * size, PAGE * size * 16, 64,
                        sums + d, c.dim, least(32, c.dim - d), true);
    }
    for (int64_t r = 0; r < rows; ++r) memcpy(out + r * ld, sums + r * c.dim, c.dim * 4);
}
static int64_t span_floats(int64_t dim) { return QUERIES * (PAGE * 2 + dim * 2) + 64; }

// out [time] rows, `ld` apart, head h at h*dim: the attention of `time` queries whose first stands
// at position `start`. q [time][heads][dim] in the dtype of the cache. most, total: [time][heads].
template <class S>
static void attend_many(const Cache& c, const char* q, int64_t time, int64_t start, float* out,
                        int64_t ld, float* most, float* total, char* packed, float* scratch,
                        int threads) {
    int64_t size = c.bf16 ? 2 : 4, words = c.dim * size / 4, group = c.heads / c.kv_heads;
    int64_t length = start + time, tiles = ceil_div(time, QUERIES);
    int64_t half = SPAN * c.dim * size;
    float* all_scales = (float*)(packed + 2 * half * c.kv_heads);
    for (int64_t t = 0; t < time; ++t) {
        for (int64_t i = 0; i < c.heads; ++i) {
            most[t * c.heads + i] = -INFINITY;
            total[t * c.heads + i] = 0;
        }
        memset(out + t * ld, 0, c.heads * c.dim * 4);
    }
    for (int64_t first = 0; first < length; first += SPAN) {
        int64_t end = least(length, first + SPAN), pages = ceil_div(end - first, PAGE);
        parallel(pages * c.kv_heads, threads, [&](int64_t i, int) {
            int64_t head = i / pages, b = i % pages * PAGE;
            char* to = packed + head * 2 * half + b * c.dim * size;
            pack_page(c, head, first + b, least(PAGE, end - first - b), to, to + half);
            float* scales = all_scales + head * 2 * SPAN + b;
            if (c.eight)
                pack_scales(c, head, first + b, least(PAGE, end - first - b), scales, scales + SPAN);
        });
        parallel(tiles * c.heads, threads, [&](int64_t i, int thread) {
            // The last tiles see the most positions: they go first.
            int64_t head = i % c.heads, t = (tiles - 1 - i / c.heads) * QUERIES;
            const char* keys = packed + head / group * 2 * half;
            attend_span<S>(c, (const int32_t*)(q + (t * c.heads + head) * c.dim * size),
                           c.heads * words, least(QUERIES, time - t), start + t, first, end, keys,
                           keys + half, all_scales + head / group * 2 * SPAN, out + t * ld + head * c.dim, ld, most + t * c.heads + head,
                           total + t * c.heads + head, scratch + thread * span_floats(c.dim));
        });
    }
    for (int64_t t = 0; t < time; ++t)
        for (int64_t i = 0; i < c.heads; ++i) {
            F16 by = set1(1.0f / total[t * c.heads + i]);
            float* row = out + t * ld + i * c.dim;
            for (int64_t d = 0; d < c.dim; d += 16) store(row + d, load(row + d) * by);
        }
}
