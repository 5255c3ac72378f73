// A mixture of experts: each row runs through the few experts that its router chose, and a shared one.
// Rows are sorted by expert first, so that the weights of a chosen expert are read once for all rows
// that chose it, and those of the others never. Sums of a row are taken in an order that depends on
// that row alone.
#pragma once
#include "stored.h"

struct Experts {
    int64_t count, chosen, hidden, inner, shared; // inner: width of an expert, shared: of the shared one
    Matrix router, shared_gate;                   // [count][hidden], [1][hidden]
    Matrix shared_gate_up[2], shared_down;        // of pairs the second may have no parts
    const Matrix* gate_up;                        // [count][2], gate rows first
    const Matrix* down;                           // [count]
};

// A product of some rows, with its place among the units of work of a call.
struct Job {
    Task task;
    int64_t ldc, start;
    bool few;
};
static int64_t units(const Job& job) {
    int64_t unit = job.few ? FEW : PANEL, total = 0;
    for (int p = 0; p < job.task.m->parts; ++p) total += ceil_div(job.task.m->rows[p], unit);
    return total;
}
// All jobs as one: threads wait once. `panels` has `room` bytes a thread.
static void run_jobs(Job* jobs, int64_t count, char* panels, int64_t room, int threads) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) jobs[i].start = total, total += units(jobs[i]);
    parallel(total, threads, [&](int64_t index, int thread) {
        int64_t low = 0, high = count - 1; // the last job that starts at `index` or before
        while (low < high) {
            int64_t middle = (low + high + 1) / 2;
            if (jobs[middle].start <= index) low = middle; else high = middle - 1;
        }
        const Job& job = jobs[low];
        const Matrix& m = *job.task.m;
        int64_t unit = job.few ? FEW : PANEL, first = 0;
        int p = 0;
        index -= job.start;
        for (int64_t here; index >= (here = ceil_div(m.rows[p], unit)); index -= here)
            first += m.rows[p++];
        run_unit(job.task, p, first, index, job.few, job.ldc, false, panels + thread * room);
    });
}

struct Choice {
    float *odds, *weight;                       // [rows][width], [rows][chosen]
    int64_t *expert, *place, *row, *first;      // of each row's choice; the row at each place; [count + 1]
};
// The softmax over all experts, and the largest of it, scaled to sum to one: as
// transformers' Qwen3_5MoeTopKRouter. Of equals the first; NaN chooses some expert and weighs NaN.
static void choose(const Experts& e, float* odds, int64_t* expert, float* weight) {
    float most = odds[0], total = 0, kept = 0;
    for (int64_t i = 1; i < e.count; ++i) most = odds[i] > most ? odds[i] : most;
    for (int64_t i = 0; i < e.count; ++i) total += odds[i] = expf(odds[i] - most);
    for (int64_t j = 0; j < e.chosen; ++j) {
        int64_t best = -1;
        for (int64_t i = 0; i < e.count; ++i) {
            bool taken = false;
            for (int64_t t = 0; t < j; ++t) taken = taken || expert[t] == i;
            if (!taken && (best < 0 || odds[i] > odds[best])) best = i;
        }
        expert[j] = best;
        kept += weight[j] = odds[best] / total;
    }
    for (int64_t j = 0; j < e.chosen; ++j) weight[j] /= kept;
}
// Sorts the choices by expert: expert i's rows lie at first[i] to first[i + 1].
static void sort_choices(const Experts& e, int64_t rows, Choice& c) {
    for (int64_t i = 0; i <= e.count; ++i) c.first[i] = 0;
    for (int64_t i = 0; i < rows * e.chosen; ++i) ++c.first[c.expert[i] + 1];
    for (int64_t i = 0; i < e.count; ++i) c.first[i + 1] += c.first[i];
    for (int64_t i = 0; i < rows * e.chosen; ++i) {
        int64_t at = c.first[c.expert[i]]++;
        c.place[i] = at;
        c.row[at] = i / e.chosen;
    }
    for (int64_t i = e.count; i > 0; --i) c.first[i] = c.first[i - 1];
    c.first[0] = 0;
}

struct ExpertWork {
    Choice c;
    Job* jobs;
    char *prepared[2], *own[2], *router[2], *down, *own_down, *panels;
    float *wide, *own_wide, *out, *own_out;
    int64_t width, room; // numbers a row of odds; bytes of panel a thread
};
static int64_t prepared_size(const Matrix& m, int64_t rows) {
    int64_t format = row_format(m.format), each = format == I8 ? 1 : format == BF16 ? 2 : 4;
    return rows * m.inputs * each + 128 + (format == I8 ? rows * (m.inputs / piece_of(m)) * 8 : 0);
}
struct Scratch {
    char* at;
    int64_t used;
    template <class T> T* take(int64_t count) {
        T* p = (T*)(at + used);
        used += (count * (int64_t)sizeof(T) + 127) & ~127;
        return p;
    }
};
static int64_t expert_scratch(const Experts& e, int64_t rows, int64_t threads, char* at, ExpertWork* w) {
    Scratch a = {at, 0};
    int64_t slots = rows * e.chosen;
    w->width = e.count + 16;
    w->c.odds = a.take<float>(rows * w->width);
    w->c.weight = a.take<float>(slots);
    w->c.expert = a.take<int64_t>(slots);
    w->c.place = a.take<int64_t>(slots);
    w->c.row = a.take<int64_t>(slots);
    w->c.first = a.take<int64_t>(e.count + 1);
    w->jobs = a.take<Job>(2 * e.count + 4);
    for (int i = 0; i < 2; ++i) {
        w->prepared[i] = a.take<char>(e.gate_up[i].parts ? prepared_size(e.gate_up[i], slots) : 0);
        w->own[i] = a.take<char>(e.shared_gate_up[i].parts ? prepared_size(e.shared_gate_up[i], rows) : 0);
    }
    w->router[0] = a.take<char>(prepared_size(e.router, rows));
    w->router[1] = a.take<char>(prepared_size(e.shared_gate, rows));
    w->down = a.take<char>(prepared_size(e.down[0], slots));
    w->own_down = a.take<char>(prepared_size(e.shared_down, rows));
    w->wide = a.take<float>(slots * 2 * e.inner);
    w->own_wide = a.take<float>(rows * 2 * e.shared);
    w->out = a.take<float>(slots * e.hidden);
    w->own_out = a.take<float>(rows * e.hidden);
    w->room = panel_bytes(wider(e.hidden, wider(e.inner, e.shared)));
    w->panels = a.take<char>(w->room * threads);
    return a.used + 128;
}

static Prepared rows_from(const Prepared& p, int64_t first) {
    int64_t each = p.piece ? 1 : p.format == BF16 ? 2 : 4, groups = p.piece ? p.inputs / p.piece : 0;
    Prepared q = p;
    q.data += first * p.inputs * each, q.scale += first * groups, q.sums += first * groups;
    return q;
}
INLINE void gate_row(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) store(x + i, silu(load(x + i)) * load(x + n + i));
}

// out[rows][hidden] += the experts of x[rows][hidden]. Up to 16 rows, and with `exact`, the bits of a
// row do not depend on the others.
static void run_experts(const Experts& e, const float* x, int64_t rows, float* out, bool exact,
                        char* scratch, int threads) {
    ExpertWork w;
    expert_scratch(e, rows, threads, (char*)(((uintptr_t)scratch + 127) & ~(uintptr_t)127), &w);
    const int64_t slots = rows * e.chosen, h = e.hidden;
    const int spread_rows = rows > 1 ? threads : 1, spread_slots = slots > 16 ? threads : 1;
    const bool few_rows = exact || rows <= 16;
    Job* jobs = w.jobs;

    Prepared router = room(e.router, rows, w.router[0]), gate = room(e.shared_gate, rows, w.router[1]);
    parallel(rows, spread_rows, [&](int64_t r, int) {
        prepare_row(router, r, x + r * h);
        prepare_row(gate, r, x + r * h);
    });
    jobs[0] = {{&e.router, rows_of(router, rows), w.c.odds}, w.width, 0, few_rows};
    jobs[1] = {{&e.shared_gate, rows_of(gate, rows), w.c.odds + e.count}, w.width, 0, few_rows};
    run_jobs(jobs, 2, w.panels, w.room, threads);
    parallel(rows, spread_rows, [&](int64_t r, int) {
        choose(e, w.c.odds + r * w.width, w.c.expert + r * e.chosen, w.c.weight + r * e.chosen);
    });
    sort_choices(e, rows, w.c);

    int64_t count = 0, at = 0, own_at = 0;
    for (int i = 0; i < 2 && e.gate_up[i].parts; ++i) {
        Prepared p = room(e.gate_up[i], slots, w.prepared[i]);
        parallel(slots, spread_slots, [&](int64_t s, int) { prepare_row(p, s, x + w.c.row[s] * h); });
        for (int64_t n = 0; n < e.count; ++n) {
            int64_t first = w.c.first[n], own = w.c.first[n + 1] - first;
            if (!own) continue;
            jobs[count++] = {{e.gate_up + 2 * n + i, rows_of(rows_from(p, first), own),
                              w.wide + first * 2 * e.inner + at},
                             2 * e.inner, 0, exact || own <= 16};
        }
        at += outputs(e.gate_up[i]);
    }
    for (int i = 0; i < 2 && e.shared_gate_up[i].parts; ++i) {
        Prepared p = room(e.shared_gate_up[i], rows, w.own[i]);
        parallel(rows, spread_rows, [&](int64_t r, int) { prepare_row(p, r, x + r * h); });
        jobs[count++] = {{e.shared_gate_up + i, rows_of(p, rows), w.own_wide + own_at},
                         2 * e.shared, 0, few_rows};
        own_at += outputs(e.shared_gate_up[i]);
    }
    run_jobs(jobs, count, w.panels, w.room, threads);

    Prepared down = room(e.down[0], slots, w.down), own_down = room(e.shared_down, rows, w.own_down);
    parallel(slots + rows, spread_slots, [&](int64_t s, int) {
        float* wide = s < slots ? w.wide + s * 2 * e.inner : w.own_wide + (s - slots) * 2 * e.shared;
        gate_row(wide, s < slots ? e.inner : e.shared);
        s < slots ? prepare_row(down, s, wide) : prepare_row(own_down, s - slots, wide);
    });
    count = 0;
    for (int64_t n = 0; n < e.count; ++n) {
        int64_t first = w.c.first[n], own = w.c.first[n + 1] - first;
        if (own)
            jobs[count++] = {{e.down + n, rows_of(rows_from(down, first), own), w.out + first * h},
                             h, 0, exact || own <= 16};
    }
    jobs[count++] = {{&e.shared_down, rows_of(own_down, rows), w.own_out}, h, 0, few_rows};
    run_jobs(jobs, count, w.panels, w.room, threads);

    parallel(rows, spread_rows, [&](int64_t r, int) {
        float open = 1.0f / (1.0f + expf(-w.c.odds[r * w.width + e.count]));
        for (int64_t i = 0; i < h; i += 16) {
            F16 sum = load(w.own_out + r * h + i) * set1(open);
            for (int64_t j = 0; j < e.chosen; ++j) {
                int64_t slot = r * e.chosen + j;
                sum = fma(load(w.out + w.c.place[slot] * h + i), set1(w.c.weight[slot]), sum);
            }
            store(out + r * h + i, load(out + r * h + i) + sum);
        }
    });
}
