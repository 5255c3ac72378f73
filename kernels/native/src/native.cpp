// What Python calls. Compiled once for each level of instructions (see kernels/native/build.py);
// every function is free of state and may run in several threads at once.
#include "replay.h"
#include "mtp.h"
#include "repack.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// The best level this processor runs: 3 AVX-512 with VNNI and BF16, 2 AVX-512 with VNNI, 1 AVX2, 0 any.
EXPORT int64_t tenuto_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool wide = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vnni");
    if (wide && __builtin_cpu_supports("avx512bf16")) return 3;
    if (wide) return 2;
    if (avx2) return 1;
#endif
    return 0;
}

EXPORT int64_t tenuto_product_scratch(const Matrix* m, int64_t rows, int64_t threads) {
    return prepared_bytes(m->inputs, rows) + panel_bytes(m->inputs) * threads + 64;
}
// out[rows][outputs] = x[rows][inputs] times the matrix.
EXPORT void tenuto_product(const Matrix* m, const float* x, int64_t rows, float* out, int64_t exact,
                           char* scratch, int64_t threads) {
    scratch = (char*)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    Prepared p = room(*m, rows, scratch);
    parallel(rows, (int)threads, [&](int64_t r, int) { prepare_row(p, r, x + r * m->inputs); });
    Task task = {m, rows_of(p, rows), out};
    products(&task, 1, outputs(*m), false, exact, scratch + prepared_bytes(m->inputs, rows),
             (int)threads);
}

// Weights as they lie in a GGUF file, as float32 [rows][inputs].
EXPORT void tenuto_unpack(const uint8_t* data, int64_t format, int64_t rows, int64_t inputs, float* to) {
#define UNPACK(Q) unpack_stored<Q>(data, rows, inputs, to)
    BY_STORED(format, UNPACK)
#undef UNPACK
}

// out[rows][hidden] += the experts of x[rows][hidden].
EXPORT int64_t tenuto_experts_scratch(const Experts* e, int64_t rows, int64_t threads) {
    ExpertWork work;
    return expert_scratch(*e, rows, threads, nullptr, &work);
}
EXPORT void tenuto_experts(const Experts* e, const float* x, int64_t rows, float* out, int64_t exact,
                           char* scratch, int64_t threads) {
    run_experts(*e, x, rows, out, exact != 0, scratch, (int)threads);
}

EXPORT int64_t tenuto_forward_scratch(const Model* m, const Batch* b) { return forward_scratch(*m, *b); }
EXPORT void tenuto_forward(const Model* m, const Batch* b) { forward(*m, *b); }
EXPORT int64_t tenuto_mtp_scratch(const Model* m, const Batch* b) { return mtp_scratch(*m, *b); }
EXPORT void tenuto_mtp(const Model* m, const Mtp* head, const Batch* b) { mtp(*m, *head, *b); }
EXPORT void tenuto_replay(const Model* m, const Batch* b) { replay(*m, *b); }

// The gated delta rule; arrays as in kernels.gated_delta_rule, float32 and contiguous.
EXPORT int64_t tenuto_delta_scratch(int64_t key_dim, int64_t value_dim, int64_t threads) {
    return delta_floats(key_dim, value_dim) * 4 * threads + 64;
}
EXPORT void tenuto_delta(const float* q, const float* k, const float* v, const float* decay,
                         const float* beta, const float* before, float* after, float* out,
                         int64_t batch, int64_t time, int64_t key_heads, int64_t value_heads,
                         int64_t key_dim, int64_t value_dim, int64_t steps, char* scratch,
                         int64_t threads) {
    float* local = (float*)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int64_t group = value_heads / key_heads, state = key_dim * value_dim;
    parallel(batch * value_heads, (int)threads, [&](int64_t i, int thread) {
        int64_t b = i / value_heads, h = i % value_heads, row = b * time;
        const float* vh = v + (row * value_heads + h) * value_dim;
        const float* qh = q + (row * key_heads + h / group) * key_dim;
        const float* kh = k + (row * key_heads + h / group) * key_dim;
        Head head = {qh, kh, vh, key_heads * key_dim, value_heads * value_dim, decay + row * value_heads + h,
                     beta + row * value_heads + h, value_heads, time, key_dim, value_dim,
                     before ? before + i * state : nullptr, after + i * state,
                     out + (row * value_heads + h) * value_dim, value_heads * value_dim,
                     batch * value_heads * state * 4 > LARGE};
        delta_rule(head, steps != 0, local + thread * delta_floats(key_dim, value_dim));
    });
}

// A weight [rows][inputs], bfloat16 or float32, into blocks and scales. `rows` of a last block may
// be fewer than 16. `scratch` holds a row of floats for each thread.
EXPORT void tenuto_quantize(const void* weight, int64_t bf16, int64_t rows, int64_t inputs,
                            int64_t group, uint8_t* data, uint16_t* scales, float* scratch,
                            int64_t threads) {
    parallel(ceil_div(rows, 16), (int)threads, [&](int64_t b, int thread) {
        float* buffer = scratch + thread * inputs;
        auto row = [&](int64_t i) {
            for (int64_t k = 0; k < inputs; k += 16)
                store(buffer + k, load_as(weight, (b * 16 + i) * inputs + k, bf16 != 0));
            return (const float*)buffer;
        };
        quantize_block(row, least(16, rows - b * 16), inputs, group,
                       data + b * inputs * 16, scales + b * inputs / group * 16);
    });
}

// The same in 4 bits through a table. `scratch` has inputs * 22 bytes for each thread.
EXPORT void tenuto_quantize_table(const void* weight, int64_t bf16, int64_t rows, int64_t inputs,
                                  int64_t span, const int8_t* table, uint8_t* data, int8_t* steps,
                                  uint16_t* tops, char* scratch, int64_t threads) {
    const Levels levels(table);
    parallel(ceil_div(rows, 16), (int)threads, [&](int64_t b, int thread) {
        float* w = (float*)(scratch + thread * inputs * 22);
        uint8_t* codes = (uint8_t*)(w + inputs);
        float* scales = (float*)(codes + 16 * inputs);
        int8_t* own_steps = (int8_t*)(scales + inputs / 16);
        uint16_t* own_tops = (uint16_t*)(own_steps + inputs / 16);
        int64_t groups = inputs / 16, spans = inputs / span;
        memset(codes, 0, (size_t)(16 * inputs));
        for (int64_t o = 0; o < 16; ++o) {
            bool there = b * 16 + o < rows;
            for (int64_t k = 0; there && k < inputs; k += 16)
                store(w + k, load_as(weight, (b * 16 + o) * inputs + k, bf16 != 0));
            if (there)
                quantize_row(levels, table, w, inputs, span, codes + o * inputs, own_steps,
                             own_tops, scales);
            for (int64_t g = 0; g < groups; ++g)
                steps[(b * groups + g) * 16 + o] = there ? own_steps[g] : 0;
            for (int64_t s = 0; s < spans; ++s)
                tops[(b * spans + s) * 16 + o] = there ? own_tops[s] : 0;
        }
        lay_out_codes(codes, inputs, 4, data + b * inputs * 8);
    });
}

// A matrix of a GGUF file as blocks, and codes [rows][inputs] as blocks.
EXPORT int64_t tenuto_repack_scratch(const Repack* r, int64_t threads) {
    return repack_scratch(*r) * threads;
}
EXPORT void tenuto_repack(const Repack* r, char* scratch, int64_t threads) {
    parallel(ceil_div(r->rows, 16), (int)threads, [&](int64_t block, int thread) {
        repack_block(*r, block, scratch + thread * repack_scratch(*r));
    });
}
EXPORT void tenuto_lay_out(const uint8_t* codes, int64_t blocks, int64_t inputs, int64_t bits,
                           uint8_t* data, int64_t threads) {
    parallel(blocks, (int)threads, [&](int64_t b, int) {
        lay_out_codes(codes + b * 16 * inputs, inputs, (int)bits, data + b * inputs * 2 * bits);
    });
}

// How fast memory is read: a sum over `bytes`, for benchmarks.
EXPORT int64_t tenuto_read(const char* data, int64_t bytes, int64_t threads) {
    constexpr int64_t PIECE = 1 << 16;
    int64_t kept[1024] = {};
    parallel(bytes / PIECE, threads < 64 ? (int)threads : 64, [&](int64_t i, int thread) {
        I16 sum = set1i(0);
        for (int64_t k = 0; k < PIECE; k += 64) {
            I16 x = loadi(data + i * PIECE + k);
            EACH sum.v[h] += x.v[h];
        }
        kept[thread * 16] += sum.v[0][0];
    });
    int64_t total = 0;
    for (int64_t k : kept) total += k;
    return total;
}
