// From the blocks of a GGUF file (ggml's layouts) to the codes, scales and tops of prepare.h; the twin
// of model/checkpoint/gguf/blocks.py.
#pragma once
#include "quantize.h"

// One row, taken apart. Numbers are in pairs of scale and term where a type has terms.
struct Apart {
    uint8_t* codes;
    uint16_t* halves; // float16 (bfloat16 for MXFP4) a group, of types without steps
    int8_t* steps;    // a group
    uint16_t* tops;   // float16 a block of 256
};
enum { GGML_Q4_0 = 2, GGML_Q4_1 = 3, GGML_Q5_0 = 6, GGML_Q5_1 = 7, GGML_Q8_0 = 8, GGML_Q2_K = 10, GGML_Q3_K = 11, GGML_Q4_K = 12, GGML_Q5_K = 13,
       GGML_Q6_K = 14, GGML_IQ4_NL = 20, GGML_IQ4_XS = 23, GGML_MXFP4 = 39 };

struct BlockType { int size, bytes, bits, group; bool terms, steps; };
static BlockType block_type(int64_t kind) {
    switch (kind) {
    case GGML_Q4_0: return {32, 18, 4, 32, false, false};
    case GGML_Q4_1: return {32, 20, 4, 32, true, false};
    case GGML_Q5_0: return {32, 22, 5, 32, false, false};
    case GGML_Q5_1: return {32, 24, 5, 32, true, false};
    case GGML_Q8_0: return {32, 34, 8, 32, false, false};
    case GGML_Q2_K: return {256, 84, 4, 16, true, true};
    case GGML_Q3_K: return {256, 110, 4, 16, false, true};
    case GGML_Q4_K: return {256, 144, 4, 32, true, true};
    case GGML_Q5_K: return {256, 176, 5, 32, true, true};
    case GGML_Q6_K: return {256, 210, 6, 16, false, true};
    case GGML_IQ4_NL: return {32, 18, 4, 32, false, false};
    case GGML_IQ4_XS: return {256, 136, 4, 32, false, true};
    case GGML_MXFP4: return {32, 17, 4, 32, false, false};
    }
    return {0, 0, 0, 0, false, false};
}

INLINE uint16_t half_at(const uint8_t* b) { return (uint16_t)(b[0] | b[1] << 8); }
INLINE void halves_of(const uint8_t* b, int n, uint8_t* to) {
    for (int i = 0; i < n; ++i) to[i] = b[i] & 15, to[n + i] = b[i] >> 4;
}
INLINE void k_scales(const uint8_t* s, int8_t* pairs) {
    for (int i = 0; i < 4; ++i) {
        pairs[2 * i] = s[i] & 63, pairs[2 * i + 1] = s[4 + i] & 63;
        pairs[8 + 2 * i] = (s[8 + i] & 15) | (s[i] >> 2 & 48);
        pairs[9 + 2 * i] = s[8 + i] >> 4 | (s[4 + i] >> 2 & 48);
    }
}
static void take_apart(int64_t kind, const uint8_t* b, Apart a) {
    switch (kind) {
    case GGML_Q4_0: case GGML_IQ4_NL:
        a.halves[0] = half_at(b), halves_of(b + 2, 16, a.codes);
        break;
    case GGML_Q4_1:
        a.halves[0] = half_at(b), a.halves[1] = half_at(b + 2), halves_of(b + 4, 16, a.codes);
        break;
    case GGML_Q5_0: case GGML_Q5_1: {
        int at = kind == GGML_Q5_0 ? 2 : 4;
        uint32_t high;
        memcpy(&high, b + at, 4);
        a.halves[0] = half_at(b);
        if (kind == GGML_Q5_1) a.halves[1] = half_at(b + 2);
        halves_of(b + at + 4, 16, a.codes);
        for (int i = 0; i < 32; ++i) a.codes[i] |= (high >> i & 1) << 4;
        break;
    }
    case GGML_Q8_0:
        a.halves[0] = half_at(b);
        for (int i = 0; i < 32; ++i) a.codes[i] = b[2 + i] ^ 0x80;
        break;
    case GGML_MXFP4: // the table has doubled numbers, so the exponent is one less; as bfloat16
        a.halves[0] = b[0] > 1 ? (uint16_t)((b[0] - 1) << 7) : (uint16_t)(b[0] ? 0x40 : 0x20);
        halves_of(b + 1, 16, a.codes);
        break;
    case GGML_Q2_K:
        for (int i = 0; i < 16; ++i) a.steps[2 * i] = b[i] & 15, a.steps[2 * i + 1] = b[i] >> 4;
        a.tops[0] = half_at(b + 80), a.tops[1] = half_at(b + 82) ^ 0x8000;
        for (int i = 0; i < 256; ++i) a.codes[i] = b[16 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        break;
    case GGML_Q3_K:
        for (int i = 0; i < 16; ++i) {
            int low = i < 8 ? b[96 + i] & 15 : b[88 + i] >> 4;
            a.steps[i] = (int8_t)((low | (b[104 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
        }
        a.tops[0] = half_at(b + 108);
        for (int i = 0; i < 256; ++i) { // from -4, as codes less 8
            int low = b[32 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
            a.codes[i] = (uint8_t)(low + 4 + 4 * (b[i % 32] >> i / 32 & 1));
        }
        break;
    case GGML_Q4_K: case GGML_Q5_K: {
        int at = kind == GGML_Q4_K ? 16 : 48;
        a.tops[0] = half_at(b), a.tops[1] = half_at(b + 2) ^ 0x8000;
        k_scales(b + 4, a.steps);
        for (int i = 0; i < 4; ++i) halves_of(b + at + 32 * i, 32, a.codes + 64 * i);
        if (kind == GGML_Q5_K)
            for (int i = 0; i < 256; ++i) a.codes[i] |= (b[16 + i % 32] >> i / 32 & 1) << 4;
        break;
    }
    case GGML_Q6_K:
        a.tops[0] = half_at(b + 208);
        memcpy(a.steps, b + 192, 16);
        for (int i = 0; i < 2; ++i) halves_of(b + 64 * i, 64, a.codes + 128 * i);
        for (int i = 0; i < 256; ++i)
            a.codes[i] |= (b[128 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) << 4;
        break;
    case GGML_IQ4_XS:
        a.tops[0] = half_at(b);
        for (int i = 0; i < 8; ++i) {
            int low = b[4 + i / 2] >> i % 2 * 4 & 15, high = half_at(b + 2) >> 2 * i & 3;
            a.steps[i] = (int8_t)((low | high << 4) - 32);
            halves_of(b + 8 + 16 * i, 16, a.codes + 32 * i);
        }
    }
}

// Codes [16][inputs] as the bytes of a block.
static void lay_out_codes(const uint8_t* codes, int64_t inputs, int bits, uint8_t* to) {
    int words = bits == 8 ? 1 : bits == 4 ? 2 : bits == 6 ? 4 : 8, width = bits - 4;
    int64_t unit = words * 8 * bits;
    if (bits != 8) memset(to, 0, (size_t)(inputs * 2 * bits));
    for (int64_t o = 0; o < 16; ++o)
        for (int64_t w = 0; w < inputs / 4; ++w) {
            uint32_t four;
            memcpy(&four, codes + o * inputs + 4 * w, 4);
            uint8_t* u = to + w / words * unit + 4 * o;
            int t = (int)(w % words);
            if (bits == 8) {
                memcpy(u, &four, 4);
                continue;
            }
            uint32_t line, low = four & 0x0f0f0f0f, high = four >> 4 & 0x03030303;
            memcpy(&line, u + t / 2 * 64, 4);
            line |= low << (t % 2 * 4);
            memcpy(u + t / 2 * 64, &line, 4);
            if (bits == 4) continue;
            memcpy(&line, u + words * 32, 4);
            line |= high << (width * t);
            memcpy(u + words * 32, &line, 4);
        }
}

// What `repack` needs besides its arrays; `span` inputs share a top, `order` is of runs of `run` inputs.
struct Repack {
    int64_t kind, rows, inputs, row_bytes, span, run;
    const uint8_t* raw;
    const int64_t* row_order;  // null: as they lie
    const int64_t* run_order;  // null: as they lie
    uint8_t* data;
    void* scales;   // float16 or bfloat16, or signed bytes: [blocks][groups][16 or 32]
    uint16_t* tops; // [blocks][spans][16 or 32]
};
static int64_t repack_scratch(const Repack& r) { return r.inputs * (16 + 1 + 2) + 256; }

template <class T> static void spread(T* to, int64_t o, int64_t count, bool terms, const T* from,
                                      const int64_t* order, int64_t run, int64_t each) {
    int64_t per = terms ? 2 : 1; // entry i stands for `each` inputs
    for (int64_t i = 0; i < count; ++i) {
        int64_t s = i;
        if (order) s = (order[i * each / run] * run + i * each % run) / each;
        for (int64_t t = 0; t < per; ++t) to[i * 16 * per + t * 16 + o] = from[s * per + t];
    }
}

// One block of 16 outputs.
static void repack_block(const Repack& r, int64_t block, char* scratch) {
    BlockType type = block_type(r.kind);
    int64_t n = r.inputs, groups = n / type.group, per = type.terms ? 2 : 1;
    uint8_t *codes = (uint8_t*)scratch, *row = codes + 16 * n;
    uint16_t* halves = (uint16_t*)(row + n); // [groups][per], groups have 16 inputs or more
    int8_t* steps = (int8_t*)(halves + n / 16 * 2);
    uint16_t* tops = (uint16_t*)(steps + n / 16 * 2);
    int64_t spans = r.span ? n / r.span : 0;
    for (int64_t o = 0; o < 16; ++o) {
        int64_t at = block * 16 + o;
        if (at >= r.rows) { // fills the last block
            memset(row, 0, (size_t)n);
            memset(halves, 0, (size_t)(scratch + repack_scratch(r) - (char*)halves));
        } else {
            const uint8_t* b = r.raw + (r.row_order ? r.row_order[at] : at) * r.row_bytes;
            for (int64_t i = 0; i < n / type.size; ++i) {
                int64_t g = i * type.size / type.group * per;
                take_apart(r.kind, b + i * type.bytes, {row + i * type.size, halves + g, steps + g,
                                                        tops + i * per});
            }
        }
        for (int64_t i = 0; i < n; i += r.run ? r.run : n) {
            int64_t from = r.run_order ? r.run_order[i / r.run] * r.run : i;
            memcpy(codes + o * n + i, row + from, (size_t)(r.run ? r.run : n));
        }
        if (!type.steps) {
            spread((uint16_t*)r.scales + block * groups * 16 * per, o, groups, type.terms, halves,
                   r.run_order, r.run, type.group);
            continue;
        }
        spread((int8_t*)r.scales + block * groups * 16 * per, o, groups, type.terms, steps,
               r.run_order, r.run, type.group);
        for (int64_t i = 0; i < spans; ++i) {
            int64_t from = i * r.span;
            if (r.run_order) from = r.run_order[from / r.run] * r.run + from % r.run;
            for (int64_t t = 0; t < per; ++t)
                r.tops[(block * spans + i) * 16 * per + t * 16 + o] = tops[from / 256 * per + t];
        }
    }
    lay_out_codes(codes, n, type.bits, r.data + block * n * 2 * type.bits);
}
