// The multi-token-prediction layer: one attention layer behind a projection of two inputs.
#pragma once
#include "forward.h"

struct Mtp {
    const float *embedding_norm, *hidden_norm; // scales, with the 1 of zero-centred weights added
    Matrix project;                            // [hidden][2 hidden], the embedding's half first
};

static int64_t mtp_scratch(const Model& m, const Batch& b) {
    int64_t rows = count_rows(b), joined = 2 * m.hidden;
    return forward_scratch(m, b) + rows * joined * 4 + prepared_bytes(joined, rows) +
           panel_bytes(joined) * b.threads + 256;
}

// As forward() for the model `m` of that one layer. In b.x are the embedded tokens, in b.hidden the
// hidden state before each; with b.keys_only the latter stay, else they are overwritten with the
// layer's own.
static void mtp(const Model& m, const Mtp& head, const Batch& given) {
    Batch b = given;
    int64_t rows = count_rows(b), n = m.hidden, joined = 2 * n;
    Arena arena = {(char*)(((uintptr_t)b.scratch + 63) & ~(uintptr_t)63), 0};
    float* both = arena.take<float>(rows * joined);
    Prepared p = room(head.project, rows, arena.take<char>(prepared_bytes(joined, rows)));
    char* panels = arena.take<char>(panel_bytes(joined) * b.threads);
    int threads = (int)b.threads;
    parallel(rows, rows > 1 ? threads : 1, [&](int64_t r, int) {
        norm_row(b.x + r * n, head.embedding_norm, n, m.eps, both + r * joined);
        norm_row(b.hidden + r * n, head.hidden_norm, n, m.eps, both + r * joined + n);
        prepare_row(p, r, both + r * joined);
    });
    Task task = {&head.project, rows_of(p, rows), b.x};
    products(&task, 1, n, false, b.exact_rows, panels, threads);
    b.scratch = arena.at + arena.used;
    forward(m, b);
}
