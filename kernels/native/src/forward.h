// The whole network for the new tokens of one or several sequences, in one call.
#pragma once
#include "attention.h"
#include "experts.h"

constexpr int JOINED = 4; // matrices of different forms side by side

struct Layer {
    int64_t kind; // 0 DeltaNet, 1 attention
    const float *input_norm, *post_norm; // scales, with the 1 of zero-centred weights added
    Matrix in_proj[4], out_proj, gate_up[2], down; // the later ones may have no parts
    const float *conv, *decay_rate, *dt_bias, *norm; // DeltaNet; conv [width][channels]
    const float *q_norm, *k_norm;                    // attention, scales as above
    const Experts* experts; // null: gate_up and down are the feed-forward network
};
struct Model {
    int64_t layer_count, hidden, intermediate;
    int64_t heads, kv_heads, head_dim, rotary;
    int64_t key_heads, value_heads, key_dim, value_dim, width;
    int64_t bf16, delta_layers, attention_layers;
    double eps, magnitude; // magnitude: the factor of cosines and sines
    const float *norm, *speed;
    const int64_t* axis; // of each frequency: 0 turns with time, 1 with height, 2 with width
    const Layer* layers;
};
// Row r of x belongs to the sequence whose `time` covers it. Slots are contiguous over layers:
// conv [delta_layers][width - 1][channels], recurrent [delta_layers][value_heads][key_dim][value_dim].
struct Batch {
    int64_t sequences, exact_rows, max_pages, threads;
    const int64_t *time, *start;
    char *const *conv_in, *const *conv_out;
    float *const *recurrent_in, *const *recurrent_out;
    char* const* pages; // [sequences][max_pages]
    float *x, *hidden;
    char* scratch;
    // Null, or where the input projections of the DeltaNet layers are kept for `replay`:
    // [delta_layers][trail_rows][delta_width], rows as in x.
    float* trail;
    int64_t trail_rows;
    // Of the last layer, which must be attention, only the keys and values are computed.
    int64_t keys_only;
    // Null for plain text, or the positions in time, height and width [rows][3].
    const int64_t* positions;
    int64_t eight; // keys and values are stored as codes and scales
};

struct Arena {
    char* at;
    int64_t used;
    template <class T> T* take(int64_t count) {
        T* p = (T*)(at + used);
        used += (count * (int64_t)sizeof(T) + 63) & ~63;
        return p;
    }
};

struct Work {
    char *prepared, *panels, *packed, *q, *experts;
    float *normed, *wide, *mixed, *out, *ff, *gates, *most, *total, *partial, *local;
    float *cos, *sin;
    int64_t *first, *sequence; // of each sequence its first row, of each row its sequence
};

static int64_t channels(const Model& m) { return 2 * m.key_heads * m.key_dim + m.value_heads * m.value_dim; }
static int64_t attention_width(const Model& m) { return 2 * (m.heads + m.kv_heads) * m.head_dim; }
static int64_t delta_width(const Model& m) {
    return channels(m) + m.value_heads * m.value_dim + 2 * m.value_heads;
}
constexpr int64_t STEPS = 16; // up to so many tokens, a sequence is run token by token

static int64_t lay_out(const Model& m, int64_t rows, int64_t blocks, int threads, char* at, Work* w) {
    Arena a = {at, 0};
    int64_t inner = wider(m.heads * m.head_dim, m.value_heads * m.value_dim);
    int64_t widest = wider(wider(m.hidden, m.intermediate), inner);
    Cache c = {};
    c.dim = m.head_dim, c.kv_heads = m.kv_heads, c.bf16 = m.bf16;
    w->prepared = a.take<char>(JOINED * prepared_bytes(widest, rows));
    w->panels = a.take<char>(panel_bytes(widest) * threads);
    w->packed = a.take<char>(packed_bytes(c));
    int64_t experts = 0; // layers differ in the forms of their experts
    ExpertWork work;
    for (int64_t i = 0; i < m.layer_count; ++i)
        if (m.layers[i].experts)
            experts = wider(experts, expert_scratch(*m.layers[i].experts, rows, threads, nullptr, &work));
    w->experts = a.take<char>(experts);
    w->normed = a.take<float>(rows * m.hidden);
    w->wide = a.take<float>(rows * wider(delta_width(m), attention_width(m)));
    w->mixed = a.take<float>(rows * channels(m));
    w->out = a.take<float>(rows * inner);
    w->ff = a.take<float>(rows * 2 * m.intermediate);
    w->gates = a.take<float>(rows * 2 * m.value_heads);
    w->q = a.take<char>(rows * m.heads * m.head_dim * 4);
    w->most = a.take<float>(rows * m.heads);
    w->total = a.take<float>(rows * m.heads);
    w->first = a.take<int64_t>(rows);
    w->sequence = a.take<int64_t>(rows);
    w->cos = a.take<float>(rows * m.rotary / 2);
    w->sin = a.take<float>(rows * m.rotary / 2);
    w->partial = a.take<float>(blocks * m.heads * (m.head_dim + 2));
    w->local = a.take<float>(wider(delta_floats(m.key_dim, m.value_dim), span_floats(m.head_dim)) * threads);
    return a.used + 64;
}

INLINE void norm_row(const float* x, const float* scale, int64_t n, double eps, float* to) {
    F16 s = zero();
    for (int64_t i = 0; i < n; i += 16) s = fma(load(x + i), load(x + i), s);
    F16 by = set1(1.0f / sqrtf(sum(s) / (float)n + (float)eps));
    for (int64_t i = 0; i < n; i += 16) store(to + i, load(x + i) * by * load(scale + i));
}

struct Run {
    const Model& m;
    const Batch& b;
    Work w;
    int64_t rows;
    int threads;
    int64_t local; // floats of scratch a thread
};

static void multiply_into(Run& run, const Matrix& m, const Prepared& p, float* out, int64_t ldc,
                          bool add) {
    Task task = {&m, rows_of(p, run.rows), out};
    products(&task, 1, ldc, add, run.b.exact_rows, run.w.panels, run.threads);
}

// The rows of x normalised, in run.w.normed.
static void normalise(Run& run, const float* scale) {
    const Model& m = run.m;
    parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
        norm_row(run.b.x + r * m.hidden, scale, m.hidden, m.eps, run.w.normed + r * m.hidden);
    });
}
// The normalised rows times those of `most` matrices that there are, side by side in `out`. Rows are
// prepared once for matrices that take them in the same form.
static void multiply_normed(Run& run, const Matrix* matrices, int most, float* out, int64_t ldc,
                            int64_t skipped = 0) {
    const Model& m = run.m;
    Task tasks[JOINED];
    Prepared made[JOINED];
    char* at = run.w.prepared;
    int count = 0;
    for (; count < most && matrices[count].parts; ++count) {
        Prepared p = room(matrices[count], run.rows, at);
        int same = 0;
        while (same < count && !same_form(made[same], p)) ++same;
        if (same < count) {
            p = made[same];
        } else {
            parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
                prepare_row(p, r, run.w.normed + r * m.hidden);
            });
            at += prepared_bytes(m.hidden, run.rows);
        }
        made[count] = p;
        tasks[count] = {matrices + count, rows_of(p, run.rows), out};
        out += outputs(matrices[count]);
    }
    products(tasks, count, ldc, false, run.b.exact_rows, run.w.panels, run.threads, skipped);
}
static void input_projection(Run& run, const Layer& layer, float* out, int64_t ldc,
                             int64_t skipped = 0) {
    normalise(run, layer.input_norm);
    multiply_normed(run, layer.in_proj, JOINED, out, ldc, skipped);
}

// The convolution and the delta rule over projected rows, and the states after them.
static __attribute__((noinline)) void delta_mix(Run& run, const Layer& layer, int64_t index,
                                                const float* proj) {
    const Model& m = run.m;
    const Batch& b = run.b;
    int64_t ld = delta_width(m), ch = channels(m), dv = m.value_heads * m.value_dim;
    int64_t state = m.value_heads * m.key_dim * m.value_dim, size = m.bf16 ? 2 : 4;
    float *mixed = run.w.mixed, *out = run.w.out, *gates = run.w.gates;
    auto conv_of = [&](int64_t s) -> Conv {
        int64_t at = index * (m.width - 1) * ch * size;
        return {proj + run.w.first[s] * ld, ld, b.time[s], ch, m.width, layer.conv,
                b.conv_in[s] ? b.conv_in[s] + at : nullptr, b.conv_out[s] + at, m.bf16 != 0};
    };
    parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
        int64_t s = run.w.sequence[r];
        conv_row(conv_of(s), r - run.w.first[s], mixed + r * ch);
        for (int64_t h = 0; h < m.value_heads; ++h) {
            float beta = proj[r * ld + ch + dv + h];
            float x = proj[r * ld + ch + dv + m.value_heads + h] + layer.dt_bias[h];
            gates[r * 2 * m.value_heads + h] =
                layer.decay_rate[h] * (x > 20.0f ? x : log1pf(expf(x)));
            gates[(r * 2 + 1) * m.value_heads + h] = 1.0f / (1.0f + expf(-beta));
        }
    });
    parallel(b.sequences, run.threads, [&](int64_t s, int) { conv_state(conv_of(s)); });
    parallel(b.sequences * m.value_heads, run.threads, [&](int64_t i, int thread) {
        int64_t s = i / m.value_heads, h = i % m.value_heads, first = run.w.first[s];
        const float* row = mixed + first * ch;
        int64_t kh = h / (m.value_heads / m.key_heads) * m.key_dim, keys = m.key_heads * m.key_dim;
        int64_t at = index * state + h * m.key_dim * m.value_dim;
        const float* g = gates + first * 2 * m.value_heads + h;
        Head head = {row + kh, row + keys + kh, row + 2 * keys + h * m.value_dim, ch, ch,
                     g, g + m.value_heads, 2 * m.value_heads, b.time[s], m.key_dim, m.value_dim,
                     b.recurrent_in[s] ? b.recurrent_in[s] + at : nullptr, b.recurrent_out[s] + at,
                     out + first * dv + h * m.value_dim, dv,
                     state * m.delta_layers * 4 > LARGE};
        delta_rule(head, b.time[s] <= STEPS, run.w.local + thread * run.local);
    });
}

static void delta_layer(Run& run, const Layer& layer, int64_t index) {
    const Model& m = run.m;
    int64_t ld = delta_width(m), ch = channels(m), dv = m.value_heads * m.value_dim;
    float *out = run.w.out, *proj = run.w.wide;
    if (run.b.trail) proj = run.b.trail + index * run.b.trail_rows * ld;
    input_projection(run, layer, proj, ld);
    delta_mix(run, layer, index, proj);
    Prepared p = room(layer.out_proj, run.rows, run.w.prepared);
    parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
        float* o = out + r * dv;
        const float* z = proj + r * ld + ch;
        for (int64_t h = 0; h < m.value_heads; ++h) {
            float* x = o + h * m.value_dim;
            norm_row(x, layer.norm, m.value_dim, m.eps, x);
            for (int64_t j = 0; j < m.value_dim; j += 16)
                store(x + j, load(x + j) * silu(load(z + h * m.value_dim + j)));
        }
        prepare_row(p, r, o);
    });
    multiply_into(run, layer.out_proj, p, run.b.x, m.hidden, true);
}

// Normalises a head, turns its first `rotary` dimensions, and scales it.
INLINE void turn_head(const Model& m, const float* x, const float* norm, const float* cos,
                      const float* sin, float scale, float* to) {
    norm_row(x, norm, m.head_dim, m.eps, to);
    for (int64_t i = 0, half = m.rotary / 2; i < half; ++i) {
        float a = to[i], c = to[half + i];
        to[i] = a * cos[i] - c * sin[i];
        to[half + i] = c * cos[i] + a * sin[i];
    }
    for (int64_t i = 0; i < m.head_dim; i += 16) store(to + i, load(to + i) * set1(scale));
}
INLINE void store_as(void* to, const float* x, int64_t n, bool bf16) {
    for (int64_t i = 0; i < n; i += 16)
        bf16 ? store_bf16((uint16_t*)to + i, load(x + i)) : store((float*)to + i, load(x + i));
}

static void attention_layer(Run& run, const Layer& layer, int64_t index, bool keys_only) {
    const Model& m = run.m;
    const Batch& b = run.b;
    int64_t ld = attention_width(m), d = m.head_dim, size = m.bf16 ? 2 : 4, width = m.heads * d;
    Cache shape = {nullptr, 0, 0, d, m.kv_heads, m.heads, m.bf16 != 0, b.eight != 0};
    int64_t plane = m.kv_heads * head_bytes(shape);
    float *proj = run.w.wide, *out = run.w.out;
    input_projection(run, layer, proj, ld, keys_only ? 2 * width : 0);
    for (int64_t s = 0, first = 0, parts = 0; s < b.sequences; first += b.time[s++]) {
        Cache c = shape;
        c.pages = b.pages + s * b.max_pages;
        c.keys = 2 * index * plane, c.values = (2 * index + 1) * plane;
        int64_t time = b.time[s], start = b.start[s];
        // Codes are multiplied in float32 where each token goes by itself.
        int64_t q_size = c.eight && time <= STEPS ? 4 : size;
        char* q = run.w.q + first * width * 4;
        parallel(time, time > 1 ? run.threads : 1, [&](int64_t t, int) {
            int64_t r = first + t;
            float head[1024];
            const float *cos = run.w.cos + r * (m.rotary / 2), *sin = run.w.sin + r * (m.rotary / 2);
            const float *row = proj + r * ld, *keys = row + 2 * width, *values = keys + m.kv_heads * d;
            for (int64_t h = 0; h < m.heads && !keys_only; ++h) {
                turn_head(m, row + 2 * h * d, layer.q_norm, cos, sin, 1.0f / sqrtf((float)d), head);
                store_as(q + (t * m.heads + h) * d * q_size, head, d, q_size == 2);
            }
            for (int64_t h = 0; h < m.kv_heads; ++h) {
                turn_head(m, keys + h * d, layer.k_norm, cos, sin, 1.0f, head);
                char *key = key_at(c, h, start + t), *value = value_at(c, h, start + t);
                if (c.eight) {
                    store_codes(c, key, start + t, head);
                    store_codes(c, value, start + t, values + h * d);
                    continue;
                }
                store_as(key, head, d, c.bf16);
                store_as(value, values + h * d, d, c.bf16);
            }
        });
        if (keys_only) continue;
        if (time > STEPS) {
            float *most = run.w.most + first * m.heads, *total = run.w.total + first * m.heads;
            (m.bf16 ? attend_many<StepBF16> : attend_many<StepF32>)(
                c, q, time, start, out + first * width, width, most, total, run.w.packed,
                run.w.local, run.threads);
            continue;
        }
        int64_t blocks = ceil_div(start + time, PAGE), group = m.heads / m.kv_heads;
        float* partial = run.w.partial + parts * m.heads * (d + 2);
        parallel(time * m.kv_heads * blocks, run.threads, [&](int64_t i, int) {
            // Tokens inside: the block that one has read is in the cache for the next.
            int64_t t = i % time, block = i / time % blocks, h = i / time / blocks;
            int64_t count = least(PAGE, start + t + 1 - block * PAGE);
            if (count <= 0) return;
            const int32_t* from = (const int32_t*)(q + (t * m.heads + h * group) * d * q_size);
            float* to = partial + ((t * blocks + block) * m.heads + h * group) * (d + 2);
            const char* next = block + 1 < blocks ? key_at(c, h, (block + 1) * PAGE) : nullptr;
            if (c.eight)
                attend_codes(c, h, block * PAGE, count, (const float*)from, to, next);
            else (m.bf16 ? attend_group<StepBF16> : attend_group<StepF32>)(c, h, block * PAGE, count,
                                                                      from, to, next);
        });
        for (int64_t t = 0; t < time; ++t)
            for (int64_t h = 0; h < m.heads; ++h)
                join_blocks(partial + (t * blocks * m.heads + h) * (d + 2),
                            ceil_div(start + t + 1, PAGE), m.heads * (d + 2), d,
                            out + (first + t) * width + h * d);
        parts += time * blocks;
    }
    if (keys_only) return;
    Prepared p = room(layer.out_proj, run.rows, run.w.prepared);
    parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
        for (int64_t h = 0; h < m.heads; ++h)
            for (int64_t i = 0; i < d; i += 16) {
                float* x = out + r * width + h * d + i;
                store(x, load(x) * sigmoid(load(proj + r * ld + (2 * h + 1) * d + i)));
            }
        prepare_row(p, r, out + r * width);
    });
    multiply_into(run, layer.out_proj, p, b.x, m.hidden, true);
}

static void feed_forward(Run& run, const Layer& layer) {
    const Model& m = run.m;
    int64_t n = m.intermediate;
    float* ff = run.w.ff;
    normalise(run, layer.post_norm);
    if (layer.experts) {
        run_experts(*layer.experts, run.w.normed, run.rows, run.b.x, run.b.exact_rows != 0,
                    run.w.experts, run.threads);
        return;
    }
    multiply_normed(run, layer.gate_up, 2, ff, 2 * n);
    Prepared p = room(layer.down, run.rows, run.w.prepared);
    parallel(run.rows, run.rows > 1 ? run.threads : 1, [&](int64_t r, int) {
        float* x = ff + r * 2 * n;
        for (int64_t i = 0; i < n; i += 16) store(x + i, silu(load(x + i)) * load(x + n + i));
        prepare_row(p, r, x);
    });
    multiply_into(run, layer.down, p, run.b.x, m.hidden, true);
}

static int64_t count_blocks(const Batch& b) {
    int64_t blocks = 0;
    for (int64_t s = 0; s < b.sequences; ++s)
        if (b.time[s] <= STEPS) blocks += b.time[s] * ceil_div(b.start[s] + b.time[s], PAGE);
    return blocks;
}
static int64_t count_rows(const Batch& b) {
    int64_t rows = 0;
    for (int64_t s = 0; s < b.sequences; ++s) rows += b.time[s];
    return rows;
}

static int64_t forward_scratch(const Model& m, const Batch& b) {
    Work w;
    return lay_out(m, count_rows(b), count_blocks(b), (int)b.threads, nullptr, &w);
}

static void forward(const Model& m, const Batch& b) {
    Run run = {m, b, {}, count_rows(b), (int)b.threads,
               wider(delta_floats(m.key_dim, m.value_dim), span_floats(m.head_dim))};
    char* aligned = (char*)(((uintptr_t)b.scratch + 63) & ~(uintptr_t)63);
    lay_out(m, run.rows, count_blocks(b), run.threads, aligned, &run.w);
    int64_t half = m.rotary / 2;
    for (int64_t s = 0, r = 0; s < b.sequences; ++s) {
        run.w.first[s] = r;
        for (int64_t t = 0; t < b.time[s]; ++t, ++r) {
            run.w.sequence[r] = s;
            for (int64_t i = 0; i < half; ++i) {
                int64_t at = b.positions ? b.positions[3 * r + m.axis[i]] : b.start[s] + t;
                float angle = (float)at * m.speed[i];
                run.w.cos[r * half + i] = cosf(angle) * (float)m.magnitude;
                run.w.sin[r * half + i] = sinf(angle) * (float)m.magnitude;
            }
        }
    }
    int64_t deltas = 0, attentions = 0;
    for (int64_t i = 0; i < m.layer_count; ++i) {
        const Layer& layer = m.layers[i];
        bool keys_only = b.keys_only && i + 1 == m.layer_count;
        layer.kind ? attention_layer(run, layer, attentions++, keys_only)
                   : delta_layer(run, layer, deltas++);
        if (keys_only) return;
        feed_forward(run, layer);
    }
    parallel(run.rows, run.rows > 16 ? run.threads : 1, [&](int64_t r, int) {
        norm_row(b.x + r * m.hidden, m.norm, m.hidden, m.eps, b.hidden + r * m.hidden);
    });
}
