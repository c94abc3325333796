// Bilinear upsampling (half-pixel centres, edges clamped) fused with argmax over classes, and its softmax on request.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

namespace ov2vss {

// Source position of every output index along one axis, in the arithmetic of torch's interpolate (float32).
struct Axis {
    std::vector<int> low, high;
    std::vector<float> weight;  // of `high`

    Axis(int size_in, int size_out) : low(size_out), high(size_out), weight(size_out) {
        const float scale = static_cast<float>(size_in) / static_cast<float>(size_out);
        for (int i = 0; i < size_out; ++i) {
            const float position = std::max(0.0f, scale * (static_cast<float>(i) + 0.5f) - 0.5f);
            low[i] = std::min(static_cast<int>(position), size_in - 1);
            high[i] = std::min(low[i] + 1, size_in - 1);
            weight[i] = std::min(std::max(position - static_cast<float>(low[i]), 0.0f), 1.0f);
        }
    }
};

// A class that is this far below the best one has less than 2e-9 of its share of the softmax.
constexpr float kNegligible = 20.0f;

// Labels for output rows [row_begin, row_end), and the winner's softmax over all classes unless `confidence` is null.
//
// All output pixels of one cell (four neighbouring logits) are convex combinations of its corners. A class whose largest
// corner is below the largest "smallest corner" of any class therefore wins nowhere in the cell, and is not interpolated.
// For the softmax the same holds with a distance below which a class does not count.
template <typename Label>
void label_rows(const float* logits, int classes, int h, int w, const Axis& rows, const Axis& columns, Label* labels,
                float* confidence, int row_begin, int row_end) {
    const float reach = confidence ? kNegligible : 0.0f;
    const int width = static_cast<int>(columns.low.size());
    const std::size_t plane = static_cast<std::size_t>(h) * w;
    std::vector<float> floor_value(w), column_min(w), column_max(w);
    std::vector<std::vector<int>> candidates(w);
    std::vector<float> values;

    int y = row_begin;
    while (y < row_end) {
        const int y0 = rows.low[y], y1 = rows.high[y];
        int y_next = y + 1;
        while (y_next < row_end && rows.low[y_next] == y0) ++y_next;

        std::fill(floor_value.begin(), floor_value.end(), -std::numeric_limits<float>::infinity());
        for (int n = 0; n < classes; ++n) {
            const float* top = logits + n * plane + static_cast<std::size_t>(y0) * w;
            const float* bottom = logits + n * plane + static_cast<std::size_t>(y1) * w;
            for (int x = 0; x < w; ++x) column_min[x] = std::min(top[x], bottom[x]);
            for (int x = 0; x + 1 < w; ++x)
                floor_value[x] = std::max(floor_value[x], std::min(column_min[x], column_min[x + 1]));
            floor_value[w - 1] = std::max(floor_value[w - 1], column_min[w - 1]);
        }
        for (auto& list : candidates) list.clear();
        for (int n = 0; n < classes; ++n) {
            const float* top = logits + n * plane + static_cast<std::size_t>(y0) * w;
            const float* bottom = logits + n * plane + static_cast<std::size_t>(y1) * w;
            for (int x = 0; x < w; ++x) column_max[x] = std::max(top[x], bottom[x]);
            for (int x = 0; x < w; ++x) {
                const float highest = x + 1 < w ? std::max(column_max[x], column_max[x + 1]) : column_max[x];
                if (highest >= floor_value[x] - reach) candidates[x].push_back(n);
            }
        }
        for (; y < y_next; ++y) {
            const float b = rows.weight[y], a = 1.0f - b;
            Label* out = labels + static_cast<std::size_t>(y) * width;
            float* sure = confidence ? confidence + static_cast<std::size_t>(y) * width : nullptr;
            for (int x = 0; x < width; ++x) {
                const int x0 = columns.low[x], x1 = columns.high[x];
                const std::vector<int>& list = candidates[x0];
                if (list.size() == 1) {
                    out[x] = static_cast<Label>(list[0]);
                    if (sure) sure[x] = 1.0f;
                    continue;
                }
                const float d = columns.weight[x], c = 1.0f - d;
                float best = -std::numeric_limits<float>::infinity();
                int winner = list.empty() ? 0 : list[0];
                if (sure && values.size() < list.size()) values.resize(list.size());
                std::size_t kept = 0;
                for (int n : list) {
                    const float* top = logits + n * plane + static_cast<std::size_t>(y0) * w;
                    const float* bottom = logits + n * plane + static_cast<std::size_t>(y1) * w;
                    const float value = a * (c * top[x0] + d * top[x1]) + b * (c * bottom[x0] + d * bottom[x1]);
                    if (sure) values[kept++] = value;
                    if (value > best) {
                        best = value;
                        winner = n;
                    }
                }
                out[x] = static_cast<Label>(winner);
                if (sure) {
                    float sum = 0.0f;
                    for (std::size_t k = 0; k < kept; ++k) {
                        const float below = values[k] - best;
                        if (below > -kNegligible) sum += std::exp(below);
                    }
                    sure[x] = 1.0f / sum;
                }
            }
        }
    }
}

// logits [classes, h, w] -> labels [height, width] and, unless null, confidence of the same size; rows are shared out
// among threads.
template <typename Label>
void label_map(const float* logits, int classes, int h, int w, Label* labels, float* confidence, int height, int width,
               int threads) {
    const Axis rows(h, height), columns(w, width);
    const int workers = std::max(1, std::min(threads, height / 16 + 1));
    auto run = [&](int worker) {
        const int begin = static_cast<int>(static_cast<std::int64_t>(height) * worker / workers);
        const int end = static_cast<int>(static_cast<std::int64_t>(height) * (worker + 1) / workers);
        label_rows(logits, classes, h, w, rows, columns, labels, confidence, begin, end);
    };
    std::vector<std::thread> pool;
    for (int worker = 1; worker < workers; ++worker) pool.emplace_back(run, worker);
    run(0);
    for (auto& thread : pool) thread.join();
}

}  // namespace ov2vss
