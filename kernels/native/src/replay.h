// The states after some of the rows that a pass has run, from the projections that it kept.
#pragma once
#include "forward.h"

// As forward() with `trail`, for the first `time` rows of one sequence of that pass: b.trail points
// to its first row, conv_in and recurrent_in are what the pass read. Writes conv_out and
// recurrent_out alone. The steps are those of the pass, so their bits are.
static void replay(const Model& m, const Batch& b) {
    Run run = {m, b, {}, count_rows(b), (int)b.threads, delta_floats(m.key_dim, m.value_dim)};
    char* aligned = (char*)(((uintptr_t)b.scratch + 63) & ~(uintptr_t)63);
    lay_out(m, run.rows, count_blocks(b), run.threads, aligned, &run.w);
    run.w.first[0] = 0;
    for (int64_t r = 0; r < run.rows; ++r) run.w.sequence[r] = 0;
    int64_t deltas = 0;
    for (int64_t i = 0; i < m.layer_count; ++i)
        if (!m.layers[i].kind) {
            delta_mix(run, m.layers[i], deltas, b.trail + deltas * b.trail_rows * delta_width(m));
            ++deltas;
        }
}
