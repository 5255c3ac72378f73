// Sixteen lanes at a time, whatever the machine has: one AVX-512 register, two AVX or four SSE ones.
// Everything above this file is written once and compiled for each level of instructions.
#pragma once
#include <atomic>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#define INLINE_MEMBER inline __attribute__((always_inline))
#define INLINE static INLINE_MEMBER

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr int PARTS = 16 / WIDTH;

typedef float vf __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * WIDTH)));
struct F16 { vf v[PARTS]; };
struct I16 { vi v[PARTS]; };
#define EACH for (int h = 0; h < PARTS; ++h)
// Unrolling takes most of the compiler's time, and the plain level gains little by it.
#if defined(__AVX2__)
#define UNROLLED _Pragma("GCC unroll 8")
#else
#define UNROLLED
#endif

INLINE F16 zero() { F16 r; EACH r.v[h] = vf{}; return r; }
INLINE F16 set1(float x) { F16 r; EACH r.v[h] = x - vf{}; return r; }
INLINE I16 set1i(int32_t x) { I16 r; EACH r.v[h] = x - vi{}; return r; }
// Part by part through unaligned types: a copy of all 64 bytes goes through the stack in pieces of
// 16, and reading those back as a whole register stalls (four times the time of a bf16 product).
typedef vf vf_at __attribute__((aligned(4), may_alias));
typedef vi vi_at __attribute__((aligned(1), may_alias));
INLINE F16 load(const float* p) { F16 r; EACH r.v[h] = *(const vf_at*)(p + WIDTH * h); return r; }
INLINE I16 loadi(const void* p) {
    I16 r;
    EACH r.v[h] = *(const vi_at*)((const char*)p + 4 * WIDTH * h);
    return r;
}
INLINE void store(float* p, F16 x) { EACH *(vf_at*)(p + WIDTH * h) = x.v[h]; }
INLINE F16 operator+(F16 a, F16 b) { EACH a.v[h] += b.v[h]; return a; }
INLINE I16 operator+(I16 a, I16 b) { EACH a.v[h] += b.v[h]; return a; }
INLINE F16 operator-(F16 a, F16 b) { EACH a.v[h] -= b.v[h]; return a; }
INLINE F16 operator*(F16 a, F16 b) { EACH a.v[h] *= b.v[h]; return a; }
INLINE F16 operator/(F16 a, F16 b) { EACH a.v[h] /= b.v[h]; return a; }
INLINE F16 fma(F16 a, F16 b, F16 c) { EACH c.v[h] = a.v[h] * b.v[h] + c.v[h]; return c; }
INLINE F16 to_float(I16 x) { F16 r; EACH r.v[h] = __builtin_convertvector(x.v[h], vf); return r; }
INLINE I16 mask(I16 x, int32_t m) { EACH x.v[h] &= m; return x; }
INLINE I16 shift(I16 x, int n) { EACH x.v[h] = (vi)((x.v[h] >> n)); return x; }
INLINE I16 raise(I16 x, int n) { EACH x.v[h] = (vi)((x.v[h] << n)); return x; }
INLINE I16 operator|(I16 a, I16 b) { EACH a.v[h] |= b.v[h]; return a; }
INLINE I16 operator^(I16 a, I16 b) { EACH a.v[h] ^= b.v[h]; return a; }
INLINE F16 max(F16 a, F16 b) { EACH a.v[h] = b.v[h] > a.v[h] ? b.v[h] : a.v[h]; return a; }
INLINE F16 absolute(F16 x) { EACH x.v[h] = (vf)((vi)x.v[h] & 0x7fffffff); return x; }

// Sums in one fixed order.
INLINE float sum(F16 x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x.v[0]);
#else
    vf s = x.v[0];
    for (int h = 1; h < PARTS; ++h) s += x.v[h];
    float r = 0;
    for (int i = 0; i < WIDTH; ++i) r += s[i];
    return r;
#endif
}
INLINE float largest(F16 x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x.v[0]);
#else
    float r = x.v[0][0];
    EACH for (int i = 0; i < WIDTH; ++i) r = x.v[h][i] > r ? x.v[h][i] : r;
    return r;
#endif
}

// exp by range reduction and the polynomial of Cephes' expf, for x up to 88; NaN stays NaN.
INLINE F16 exp_below(F16 x) {
#if defined(__AVX512F__)
    // The scaling instruction rounds to zero by itself what is too small, so nothing is clamped.
    __m512 a = (__m512)x.v[0];
    __m512 n = _mm512_roundscale_ps(a * _mm512_set1_ps(1.44269504088896341f), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), a);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    x.v[0] = (vf)_mm512_scalef_ps(p * (r * r) + (r + 1.0f), n);
#else
    EACH {
        vf a = x.v[h];
        a = a < -87.0f ? -87.0f - vf{} : a;
        vf t = a * 1.44269504088896341f + 12582912.0f;
        vi n = (vi)t - 0x4b400000;
        vf f = t - 12582912.0f;
        vf r = a - f * 0.693359375f;
        r = r + f * 2.12194440e-4f;
        vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * r * r + r + 1.0f;
        x.v[h] = p * (vf)((n + 127) << 23);
    }
#endif
    return x;
}
INLINE F16 exp(F16 x) {
    EACH x.v[h] = x.v[h] > 88.0f ? 88.0f - vf{} : x.v[h];
    return exp_below(x);
}
INLINE F16 sigmoid(F16 x) { return set1(1) / (set1(1) + exp(zero() - x)); }
INLINE F16 silu(F16 x) { return x * sigmoid(x); }

// bfloat16: two neighbours in a 32-bit word, the earlier one in the low half.
INLINE uint16_t to_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)((u >> 16) | 64);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
INLINE float from_bf16(uint16_t x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
INLINE F16 load_bf16(const uint16_t* p) {
#if defined(__AVX512F__)
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    F16 r;
    r.v[0] = (vf)_mm512_slli_epi32(w, 16);
    return r;
#elif defined(__AVX2__)
    F16 r;
    EACH r.v[h] = (vf)_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8 * h))), 16);
    return r;
#else
    float t[16];
    for (int i = 0; i < 16; ++i) t[i] = from_bf16(p[i]);
    return load(t);
#endif
}
// Sixteen float16, also subnormal ones.
INLINE F16 load_half(const uint16_t* p) {
    F16 r;
#if defined(__AVX512F__)
    r.v[0] = (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
    EACH r.v[h] = (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8 * h)));
#else
    float t[16];
    for (int i = 0; i < 16; ++i) {
        uint32_t e = p[i] >> 10 & 31, m = p[i] & 1023, u = (e + 112) << 23 | m << 13;
        float x;
        if (e == 31) u = 0x7f800000 | m << 13;
        memcpy(&x, &u, 4);
        if (e == 0) x = (float)m * 5.9604644775390625e-8f;
        t[i] = p[i] >> 15 ? -x : x;
    }
    r = load(t);
#endif
    return r;
}
// Sixteen signed bytes.
INLINE F16 load_steps(const int8_t* p) {
    F16 r;
#if defined(__AVX512F__)
    r.v[0] = (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
    EACH r.v[h] = (vf)_mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8 * h))));
#else
    EACH for (int i = 0; i < WIDTH; ++i) r.v[h][i] = p[h * WIDTH + i];
#endif
    return r;
}
// Sixteen numbers of e4m3, divided by 256: their bits are those of a float16 whose exponent is off by
// the difference of the biases. The bits of NaN are not looked for.
INLINE F16 load_e4m3(const uint8_t* p) {
    F16 r;
#if defined(__AVX512F__)
    __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    __m256i s = _mm256_slli_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0x80)), 8);
    __m256i n = _mm256_slli_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0x7f)), 7);
    r.v[0] = (vf)_mm512_cvtph_ps(_mm256_or_si256(s, n));
#elif defined(__F16C__)
    EACH {
        __m128i w = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i*)(p + 8 * h)));
        __m128i s = _mm_slli_epi16(_mm_and_si128(w, _mm_set1_epi16(0x80)), 8);
        __m128i n = _mm_slli_epi16(_mm_and_si128(w, _mm_set1_epi16(0x7f)), 7);
        r.v[h] = (vf)_mm256_cvtph_ps(_mm_or_si128(s, n));
    }
#else
    uint16_t t[16];
    for (int i = 0; i < 16; ++i) t[i] = (p[i] & 0x80) << 8 | (p[i] & 0x7f) << 7;
    r = load_half(t);
#endif
    return r;
}
INLINE void store_bf16(uint16_t* p, F16 x) {
#if defined(__AVX512BF16__)
    __m256bh r = _mm512_cvtneps_pbh((__m512)x.v[0]);
    memcpy(p, &r, 32);
#else
    float t[16];
    store(t, x);
    for (int i = 0; i < 16; ++i) p[i] = to_bf16(t[i]);
#endif
}

// acc + the products of two pairs of bfloat16 in each lane.
INLINE F16 dot2(F16 acc, I16 w, I16 a) {
#if defined(__AVX512BF16__)
    acc.v[0] = (vf)_mm512_dpbf16_ps((__m512)acc.v[0], (__m512bh)w.v[0], (__m512bh)a.v[0]);
#else
    EACH {
        acc.v[h] = (vf)(w.v[h] << 16) * (vf)(a.v[h] << 16) + acc.v[h];
        acc.v[h] = (vf)(w.v[h] & (int32_t)0xffff0000) * (vf)(a.v[h] & (int32_t)0xffff0000) + acc.v[h];
    }
#endif
    return acc;
}

// acc + the products of four unsigned bytes of w with four signed bytes of a in each lane; exact.
INLINE I16 dot4(I16 acc, I16 w, I16 a) {
#if defined(__AVX512VNNI__)
    acc.v[0] = (vi)_mm512_dpbusd_epi32((__m512i)acc.v[0], (__m512i)w.v[0], (__m512i)a.v[0]);
#elif defined(__AVX2__)
    EACH {
        __m256i u = (__m256i)w.v[h], s = (__m256i)a.v[h];
        __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
        __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
        acc.v[h] += (vi)even + (vi)odd;
    }
#elif defined(__SSE2__)
    EACH {
        __m128i u = (__m128i)w.v[h], s = (__m128i)a.v[h];
        __m128i even = _mm_madd_epi16(_mm_and_si128(u, _mm_set1_epi16(255)),
                                      _mm_srai_epi16(_mm_slli_epi16(s, 8), 8));
        __m128i odd = _mm_madd_epi16(_mm_srli_epi16(u, 8), _mm_srai_epi16(s, 8));
        acc.v[h] += (vi)even + (vi)odd;
    }
#else
    uint8_t u[64];
    int8_t s[64];
    memcpy(u, &w, 64);
    memcpy(s, &a, 64);
    for (int i = 0; i < 16; ++i) {
        int32_t t = 0;
        for (int j = 0; j < 4; ++j) t += u[4 * i + j] * s[4 * i + j];
        acc.v[i / WIDTH][i % WIDTH] += t;
    }
#endif
    return acc;
}

// The bytes of `table`, 16 of them four times, at the places that the bytes of x name.
INLINE I16 look_up(I16 table, I16 x) {
#if defined(__AVX512BW__)
    x.v[0] = (vi)_mm512_shuffle_epi8((__m512i)table.v[0], (__m512i)x.v[0]);
#elif defined(__AVX2__)
    EACH x.v[h] = (vi)_mm256_shuffle_epi8((__m256i)table.v[h], (__m256i)x.v[h]);
#else
    uint8_t t[64], u[64];
    memcpy(t, &table, 64);
    memcpy(u, &x, 64);
    for (int i = 0; i < 64; ++i) u[i] = t[u[i]];
    memcpy(&x, u, 64);
#endif
    return x;
}

INLINE int32_t word(const void* p) { int32_t w; memcpy(&w, p, 4); return w; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t wider(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// body(i, thread) for i in 0..count. Each thread takes its own run of neighbours piece by piece, so
// that it reads one stretch of memory in order, and then helps others with theirs. Which thread takes
// what never changes a result, because no sum crosses from one i to another.
constexpr int MOST_THREADS = 256;
template <class Body>
static inline void parallel(int64_t count, int threads, const Body& body) {
    if (threads > count) threads = (int)count;
#if defined(_OPENMP)
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > 1) {
        struct alignas(128) Part { std::atomic<int64_t> next; int64_t end; } parts[MOST_THREADS];
        for (int t = 0; t < threads; ++t) {
            parts[t].next.store(count * t / threads, std::memory_order_relaxed);
            parts[t].end = count * (t + 1) / threads;
        }
        int64_t piece = count / (threads * 64) < 1 ? 1 : count / (threads * 64);
#pragma omp parallel num_threads(threads)
        {
            int own = omp_get_thread_num();
            for (int t = 0; t < threads; ++t) {
                Part& part = parts[(own + t) % threads];
                for (int64_t i; (i = part.next.fetch_add(piece, std::memory_order_relaxed)) < part.end;)
                    for (int64_t end = least(part.end, i + piece); i < end; ++i) body(i, own);
            }
        }
        return;
    }
#endif
    for (int64_t i = 0; i < count; ++i) body(i, 0);
}
