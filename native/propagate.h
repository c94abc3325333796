// Logits of the past, moved along the optical flow and blended with the present ones, and their label map: one pass.
#pragma once

#include "label_map.h"
#include "workers.h"

namespace ov2vss {

// Bilinear sample of one row of one class: `corner` and `weight` hold [4, w], the four neighbours of every place.
OV2VSS_CLONES static void move_row(const float* past, const int* corner, const float* weight, int w, float* out) {
    const int *a = corner, *b = corner + w, *c = corner + 2 * w, *d = corner + 3 * w;
    const float *p = weight, *q = weight + w, *r = weight + 2 * w, *s = weight + 3 * w;
    for (int x = 0; x < w; ++x)
        out[x] = (p[x] * past[a[x]] + q[x] * past[b[x]]) + (r[x] * past[c[x]] + s[x] * past[d[x]]);
}

// The sample blended with the present row: out = present + share * (sample - present).
OV2VSS_CLONES static void blend_row(const float* past, const float* present, const int* corner, const float* weight,
                                    const float* share, int w, float* out) {
    const int *a = corner, *b = corner + w, *c = corner + 2 * w, *d = corner + 3 * w;
    const float *p = weight, *q = weight + w, *r = weight + 2 * w, *s = weight + 3 * w;
    for (int x = 0; x < w; ++x) {
        const float moved = (p[x] * past[a[x]] + q[x] * past[b[x]]) + (r[x] * past[c[x]] + s[x] * past[d[x]]);
        out[x] = present[x] + share[x] * (moved - present[x]);
    }
}

// A class joins the running best and second best of `count` cells.
OV2VSS_CLONES static void join_two(const float* value, int count, float* best, float* second) {
    for (int x = 0; x < count; ++x) {
        const float lower = value[x] < best[x] ? value[x] : best[x];
        second[x] = lower > second[x] ? lower : second[x];
        best[x] = value[x] > best[x] ? value[x] : best[x];
    }
}

// 1 where the two best logits are equal, 0 where they are `sure` or more apart; `count` cells from `begin` on.
static void doubt(const float* logits, int classes, std::size_t plane, std::size_t begin, int count, float inverse_sure,
                  std::vector<float>& best, float* out) {
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    best.assign(2 * static_cast<std::size_t>(count), lowest);
    for (int n = 0; n < classes; ++n) join_two(logits + n * plane + begin, count, best.data(), best.data() + count);
    for (int x = 0; x < count; ++x) out[x] = std::max(1.0f - (best[x] - best[count + x]) * inverse_sure, 0.0f);
}

// Makes the rows of a frame's logits from the past ones.
struct Mover {
    const float *past, *flow;      // [classes, h, w], [h, w, 2] (x, y; in cells)
    const float *present, *trust;  // [classes, h, w], [h, w]; null together: rows are moved and not blended
    float lean, inverse_sure;
    int classes, h, w;
    float* out;
    std::vector<float> past_doubt;  // [h, w]

    void prepare() {
        if (!present) return;
        const std::size_t plane = static_cast<std::size_t>(h) * w;
        past_doubt.resize(plane);
        std::vector<float> best;
        for (int y = 0; y < h; ++y) {
            const std::size_t begin = static_cast<std::size_t>(y) * w;
            doubt(past, classes, plane, begin, w, inverse_sure, best, past_doubt.data() + begin);
        }
    }

    // What one worker needs to make rows.
    struct Scratch {
        std::vector<int> corner;
        std::vector<float> weight, share, moved_doubt, best;
        explicit Scratch(int w)
            : corner(4 * static_cast<std::size_t>(w)), weight(corner.size()), share(w), moved_doubt(w) {}
    };

    // Row y of every class, sampled at (x + flow[y, x, 0], y + flow[y, x, 1]), held at the borders.
    void row(int y, Scratch& s) const {
        for (int x = 0; x < w; ++x) {
            const float* at = flow + 2 * (static_cast<std::size_t>(y) * w + x);
            const float sx = std::min(std::max(static_cast<float>(x) + at[0], 0.0f), static_cast<float>(w - 1));
            const float sy = std::min(std::max(static_cast<float>(y) + at[1], 0.0f), static_cast<float>(h - 1));
            const int x0 = static_cast<int>(sx), y0 = static_cast<int>(sy);
            const int x1 = std::min(x0 + 1, w - 1), y1 = std::min(y0 + 1, h - 1);
            const float dx = sx - static_cast<float>(x0), dy = sy - static_cast<float>(y0);
            s.corner[x] = y0 * w + x0;
            s.corner[w + x] = y0 * w + x1;
            s.corner[2 * w + x] = y1 * w + x0;
            s.corner[3 * w + x] = y1 * w + x1;
            s.weight[x] = (1.0f - dy) * (1.0f - dx);
            s.weight[w + x] = (1.0f - dy) * dx;
            s.weight[2 * w + x] = dy * (1.0f - dx);
            s.weight[3 * w + x] = dy * dx;
        }
        const std::size_t plane = static_cast<std::size_t>(h) * w, begin = static_cast<std::size_t>(y) * w;
        if (present) {
            move_row(past_doubt.data(), s.corner.data(), s.weight.data(), w, s.moved_doubt.data());
            doubt(present, classes, plane, begin, w, inverse_sure, s.best, s.share.data());
            for (int x = 0; x < w; ++x) {
                const float leaning = 1.0f + lean * (s.share[x] - s.moved_doubt[x]);
                s.share[x] = trust[begin + x] * std::min(std::max(leaning, 0.0f), 1.0f);
            }
        }
        for (int n = 0; n < classes; ++n) {
            const float* from = past + n * plane;
            float* to = out + n * plane + begin;
            if (present)
                blend_row(from, present + n * plane + begin, s.corner.data(), s.weight.data(), s.share.data(), w, to);
            else
                move_row(from, s.corner.data(), s.weight.data(), w, to);
        }
    }
};

// Moves (and blends) every row of `mover` once, and writes the labels of the result as `label_map` would.
//
// A worker makes the rows of logits just before the rows of labels that need them, while they are in its cache. The few
// rows that two workers need are made first.
template <typename Label>
void propagate(Mover& mover, Label* labels, float* confidence, int height, int width, int threads) {
    const int h = mover.h, w = mover.w;
    const Axis rows(h, height), columns(w, width);
    const int workers = std::max(1, std::min(threads, height / 16 + 1));
    auto start = [&](int worker) { return static_cast<int>(static_cast<std::int64_t>(height) * worker / workers); };
    std::vector<char> made(h, 0);
    mover.prepare();
    {
        Mover::Scratch scratch(w);
        auto make = [&](int y) {
            if (!made[y]) mover.row(y, scratch);
            made[y] = 1;
        };
        for (int worker = 1; worker < workers; ++worker)
            for (int y : {start(worker) - 1, start(worker)}) {
                make(rows.low[y]);
                make(rows.high[y]);
            }
        // A label map with fewer rows than the logits leaves some out; they belong to the state all the same.
        for (int y = 0, at = 0; y < h; ++y) {
            while (at < height && rows.high[at] < y) ++at;
            if (at == height || rows.low[at] > y) make(y);
        }
    }
    auto run = [&](int worker) {
        Mover::Scratch scratch(w);
        auto before = [&](int y0, int y1) {
            for (int y : {y0, y1})
                if (!made[y]) {
                    mover.row(y, scratch);
                    made[y] = 1;
                }
        };
        label_rows(mover.out, mover.classes, h, w, rows, columns, labels, confidence, start(worker), start(worker + 1),
                   before);
    };
    share_out(workers, run);
}

}  // namespace ov2vss
