// Products of few rows with quantised weights on AVX2, eight outputs in a register: what `few_int` of
// few.h computes, to the bit, with no more than the sixteen registers hold.
#pragma once
#include "codes.h"

#if defined(__AVX2__) && !defined(__AVX512F__)
typedef __m256i Bytes;

// Half `h` of word `k` of the codes at `p`, as `code_word` gives all of it.
template <int F> INLINE Bytes half_word(const char* p, int k, int h, Bytes table) {
    auto at = [](const char* q) { return _mm256_loadu_si256((const Bytes*)q); };
    if (F == I8) {
        Bytes w = at(p + k * 64 + 32 * h);
        return Code<F>::SIGNED ? _mm256_xor_si256(w, _mm256_set1_epi8(-128)) : w;
    }
    int words = F == I5 ? 8 : F == I6 ? 4 : 2, t = k % words;
    const char* unit = p + k / words * (words * 8 * Code<F>::BITS) + 32 * h;
    Bytes w = at(unit + t / 2 * 64);
    w = _mm256_and_si256(t % 2 ? _mm256_srli_epi16(w, 4) : w, _mm256_set1_epi8(15));
    if (F == T4 || F == N4) return _mm256_shuffle_epi8(table, w);
    if (F == I4) return w;
    Bytes high = at(unit + words * 32);
    int up = F == I5 ? 4 - t : 4 - 2 * t;
    high = up >= 0 ? _mm256_slli_epi32(high, up) : _mm256_srli_epi32(high, -up);
    return _mm256_or_si256(w, _mm256_and_si256(high, _mm256_set1_epi8(F == I5 ? 16 : 48)));
}

constexpr int64_t SOME = 32; // pieces of inputs whose scales are made at once

// The scales of `count` pieces of a block, from `piece` on, and their terms if there are any.
static __attribute__((noinline)) void make_scales(const ScaleTable& table, int64_t block, int64_t piece,
                                                  int64_t count, F16* by, F16* term) {
    const Matrix& m = table.m;
    if (m.scale_kind >= SCALE_STEP_F16 && !m.terms && !table.group_shift) {
        // The common case of int4: a step each piece, below a top that many share.
        const int8_t* steps = (const int8_t*)m.scales + (block * table.groups + piece) * 16;
        const uint16_t* tops = m.tops + block * table.spans * 16;
        F16 top = zero();
        for (int64_t i = 0, last = -1; i < count; ++i) {
            int64_t span = (piece + i) >> table.span_shift;
            if (span != last) top = table.top(tops + span * 16), last = span;
            by[i] = load_steps(steps + i * 16) * top;
        }
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        Scales s = table.at(block, piece + i);
        by[i] = s.by;
        if (m.terms) term[i] = s.term;
    }
}

// M input rows from `r0` on, one block of 16 outputs.
template <int F, int A, int M>
static __attribute__((noinline)) void few_pairs(const Rows& x, int64_t r0, const Matrix& m,
                                                int64_t block, float* c, int64_t ldc, int64_t n,
                                                bool add) {
    constexpr int BYTES = A * 2 * Code<F>::BITS, FIT = Code<F>::FIT, WORDS = A / 4;
    const int64_t groups = x.groups, inputs = m.inputs;
    const char *a = x.data + r0 * inputs, *b = (const char*)m.data[0] + block * groups * BYTES;
    const float* scale = x.scale + r0 * groups;
    const int32_t* sums = x.sums + r0 * groups;
    const ScaleTable scales(m);
    const I16 whole_table = table_of<F>(m);
    const Bytes table = (Bytes)whole_table.v[0], ones = _mm256_set1_epi16(1);
    const int32_t over = -excess<F>(m);
    const bool terms = m.terms != 0;
    F16 by[SOME], term[SOME];
    int32_t bias[M][SOME];
    vf acc[M][2];
    for (int r = 0; r < M; ++r)
        for (int h = 0; h < 2; ++h) acc[r][h] = vf{};
    for (int64_t first = 0; first < groups; first += SOME) {
        const int64_t count = least(SOME, groups - first);
        make_scales(scales, block, first, count, by, term);
        for (int r = 0; r < M; ++r)
            for (int64_t i = 0; i < count; ++i) bias[r][i] = over * sums[r * groups + first + i];
        const char *bg = b + first * BYTES, *ag = a + first * A;
        const float* own = scale + first;
        for (int64_t i = 0; i < count; ++i, bg += BYTES, ag += A) {
            for (int k = 0; k < BYTES; k += 64) ask(bg + k);
            Bytes dots[M][2], part[M][2];
            for (int r = 0; r < M; ++r)
                for (int h = 0; h < 2; ++h) dots[r][h] = _mm256_set1_epi32(bias[r][i]);
UNROLLED
            for (int k = 0; k < WORDS; ++k) {
                Bytes w[2];
                for (int h = 0; h < 2; ++h) w[h] = half_word<F>(bg, k, h, table);
                for (int r = 0; r < M; ++r) {
                    Bytes v = _mm256_set1_epi32(word(ag + r * inputs + 4 * k));
                    for (int h = 0; h < 2; ++h) {
                        if (FIT == 0) {
                            Bytes p = _mm256_maddubs_epi16(_mm256_abs_epi8(w[h]), _mm256_sign_epi8(v, w[h]));
                            dots[r][h] = _mm256_add_epi32(dots[r][h], _mm256_madd_epi16(p, ones));
                            continue;
                        }
                        Bytes p = _mm256_maddubs_epi16(w[h], v);
                        if (k % wider(FIT, 1)) p = _mm256_add_epi16(p, part[r][h]);
                        if (k % wider(FIT, 1) == FIT - 1 || k == WORDS - 1)
                            dots[r][h] = _mm256_add_epi32(dots[r][h], _mm256_madd_epi16(p, ones));
                        else
                            part[r][h] = p;
                    }
                }
            }
            for (int r = 0; r < M; ++r) {
                vf o = own[r * groups + i] - vf{};
                for (int h = 0; h < 2; ++h)
                    acc[r][h] = (vf)_mm256_cvtepi32_ps(dots[r][h]) * o * by[i].v[h] + acc[r][h];
            }
            if (terms)
                for (int r = 0; r < M; ++r) {
                    vf o = own[r * groups + i] * (float)sums[r * groups + first + i] - vf{};
                    for (int h = 0; h < 2; ++h) acc[r][h] = o * term[i].v[h] + acc[r][h];
                }
        }
    }
    for (int r = 0; r < M; ++r) {
        F16 y;
        for (int h = 0; h < 2; ++h) y.v[h] = acc[r][h];
        put(c + r * ldc, y, n, add);
    }
}
#endif
