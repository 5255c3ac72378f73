// Codes of quantised weights as bytes, and their products with rounded inputs.
#pragma once
#include "prepare.h"

// Products of unsigned with signed bytes go in pairs into 16 bits on AVX2. FIT is how many of them fit
// there one upon the other; 0: none surely does, and the signs are moved to the inputs first.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr bool PAIRS = true;
#else
constexpr bool PAIRS = false;
#endif
template <int F> struct Code {
    static constexpr int BITS = F == I8 ? 8 : F == I6 ? 6 : F == I5 ? 5 : 4;
    static constexpr int FIT = F == I4 ? 8 : F == I5 ? 4 : F == I6 || F == N4 ? 2 : 0;
    static constexpr bool SIGNED = PAIRS && FIT == 0; // bytes are the integers themselves
};
// What the bytes of `code_word` exceed the integers by.
template <int F> INLINE int32_t excess(const Matrix& m) {
    if (F == T4) return Code<F>::SIGNED ? 0 : 128;
    return (int32_t)m.zero - (F == I8 && Code<F>::SIGNED ? 128 : 0);
}
template <int F> INLINE I16 table_of(const Matrix& m) {
    I16 t = set1i(0);
    if (F != T4 && F != N4) return t;
    for (int i = 0; i < 4; ++i) memcpy((char*)&t + 16 * i, m.table, 16);
    return F == N4 || Code<F>::SIGNED ? t : t ^ set1i((int32_t)0x80808080);
}

// Word `k` of the codes at `p`, where a piece of inputs begins.
template <int F> INLINE I16 code_word(const char* p, int k, I16 table) {
    constexpr int32_t HALF = 0x0f0f0f0f;
    if (F == I8) {
        I16 w = loadi(p + k * 64);
        return Code<F>::SIGNED ? w ^ set1i((int32_t)0x80808080) : w;
    }
    int words = F == I5 ? 8 : F == I6 ? 4 : 2, t = k % words;
    const char* unit = p + k / words * (words * 8 * Code<F>::BITS);
    I16 w = loadi(unit + t / 2 * 64);
    w = mask(t % 2 ? shift(w, 4) : w, HALF);
    if (F == T4 || F == N4) return look_up(table, w);
    if (F == I4) return w;
    I16 high = loadi(unit + words * 32);
    int up = F == I5 ? 4 - t : 4 - 2 * t;
    high = up >= 0 ? raise(high, up) : shift(high, -up);
    return w | mask(high, F == I5 ? 0x10101010 : 0x30303030);
}

// dots + the products of word k of `count` with a word of inputs. `part` is kept from word to word.
template <int F> INLINE void step(I16& dots, I16& part, I16 w, I16 a, int k, int count) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    constexpr int FIT = Code<F>::FIT;
    const __m256i ones = _mm256_set1_epi16(1);
    EACH {
        __m256i u = (__m256i)w.v[h], s = (__m256i)a.v[h];
        if (FIT == 0) {
            __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(s, u));
            dots.v[h] += (vi)_mm256_madd_epi16(p, ones);
            continue;
        }
        __m256i p = _mm256_maddubs_epi16(u, s);
        if (k % wider(FIT, 1)) p = _mm256_add_epi16(p, (__m256i)part.v[h]);
        if (k % wider(FIT, 1) == FIT - 1 || k == count - 1)
            dots.v[h] += (vi)_mm256_madd_epi16(p, ones);
        part.v[h] = (vi)p;
    }
#else
    dots = dot4(dots, w, a);
#endif
}

// Scales and terms of 16 outputs.
struct Scales { F16 by, term; };
struct ScaleTable {
    const Matrix& m;
    int64_t per, groups, spans;
    int group_shift, span_shift; // pieces of inputs to groups and to spans
    INLINE_MEMBER explicit ScaleTable(const Matrix& m) : m(m) {
        int64_t piece = piece_of(m);
        per = m.terms ? 32 : 16;
        groups = m.inputs / m.group;
        spans = m.span ? m.inputs / m.span : 0;
        group_shift = __builtin_ctzll(m.group / piece);
        span_shift = m.span ? __builtin_ctzll(m.span / piece) : 0;
    }
    INLINE_MEMBER F16 numbers(int64_t at) const {
        if (m.scale_kind == SCALE_BF16) return load_bf16((const uint16_t*)m.scales + at);
        if (m.scale_kind == SCALE_F16) return load_half((const uint16_t*)m.scales + at);
        return load((const float*)m.scales + at);
    }
    INLINE_MEMBER F16 top(const uint16_t* p) const {
        return m.scale_kind == SCALE_STEP_F16 ? load_half(p) : load_bf16(p);
    }
    INLINE_MEMBER Scales at(int64_t block, int64_t piece) const {
        int64_t at = (block * groups + (piece >> group_shift)) * per;
        Scales s;
        if (m.scale_kind >= SCALE_STEP_F16) {
            const int8_t* steps = (const int8_t*)m.scales + at;
            const uint16_t* tops = m.tops + (block * spans + (piece >> span_shift)) * per;
            s.by = load_steps(steps) * top(tops);
            s.term = m.terms ? load_steps(steps + 16) * top(tops + 16) : zero();
        } else {
            s.by = numbers(at);
            s.term = m.terms ? numbers(at + 16) : zero();
        }
        return s;
    }
};

// acc + dots, the products of a piece of inputs with scale `by` and sum `total`, as numbers.
INLINE F16 scaled(F16 acc, I16 dots, float by, int32_t total, const Scales& s, bool terms) {
    acc = fma(to_float(dots) * set1(by), s.by, acc);
    return terms ? fma(set1(by * (float)total), s.term, acc) : acc;
}
