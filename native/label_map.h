// Bilinear upsampling (half-pixel centres, edges clamped) fused with argmax over classes, and its softmax on request.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "workers.h"

// The inner loops are compiled for several instruction sets, and the loader (glibc's) picks the best that there is;
// not under ThreadSanitizer, which is not there yet when the loader asks.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#define OV2VSS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define OV2VSS_CLONES
#endif

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
// Output columns that are worked on at a time: the best values of a cell's rows stay in the first cache.
constexpr int kBlock = 128;

// One row of one class, `row` [w], at the output columns [begin, end).
OV2VSS_CLONES static void interpolate_row(const float* row, const int* low, const int* high, const float* weight,
                                          int begin, int end, float* out) {
    for (int x = begin; x < end; ++x) {
        const float d = weight[x];
        out[x - begin] = (1.0f - d) * row[low[x]] + d * row[high[x]];
    }
}

// A class joins one output row: where it is better, `best` and `label` become its own.
OV2VSS_CLONES static void join(const float* top, const float* bottom, float a, float b, int index, int count,
                               float* best, std::int32_t* label) {
    for (int x = 0; x < count; ++x) {
        const float value = a * top[x] + b * bottom[x];
        const bool better = value > best[x];
        best[x] = better ? value : best[x];
        label[x] = better ? index : label[x];
    }
}

// A class adds its share of the softmax, exp(value - best), to one output row; within 1e-5 of its value.
//
// exp(x) = 2^k * exp(f) with f in [-ln 2 / 2, ln 2 / 2], written so that compilers vectorize it.
OV2VSS_CLONES static void add_share(const float* top, const float* bottom, float a, float b, int count,
                                    const float* best, float* sum) {
    float series[kBlock], power[kBlock];
    std::int32_t bits[kBlock];
    for (int x = 0; x < count; ++x) {
        const float distance = a * top[x] + b * bottom[x] - best[x];
        const float below = (distance > -80.0f ? distance : -80.0f) * 1.44269504f;
        const std::int32_t k = static_cast<std::int32_t>(below - 0.5f);  // to the nearest, as below <= 0
        const float f = (below - static_cast<float>(k)) * 0.69314718f;
        series[x] = 1.0f + f * (1.0f + f * (0.5f + f * (1.6666667e-1f + f * (4.1666668e-2f + f * 8.3333338e-3f))));
        bits[x] = (k + 127) * (1 << 23);
    }
    std::memcpy(power, bits, sizeof(float) * static_cast<std::size_t>(count));
    for (int x = 0; x < count; ++x) sum[x] += series[x] * power[x];
}

// Labels for output rows [row_begin, row_end), and the winner's softmax over all classes unless `confidence` is null.
//
// All output pixels of one cell (four neighbouring logits) are convex combinations of its corners. A class whose
// largest corner is below the largest "smallest corner" of any class therefore wins nowhere in the cell; one that wins
// in none of a block's cells is not interpolated there. For the softmax the same holds with a distance below which a
// class does not count.
//
// `before(y0, y1)` is called before the two rows of logits are read.
template <typename Label, typename Before>
void label_rows(const float* logits, int classes, int h, int w, const Axis& rows, const Axis& columns, Label* labels,
                float* confidence, int row_begin, int row_end, Before before) {
    const float reach = confidence ? kNegligible : 0.0f;
    const int width = static_cast<int>(columns.low.size());
    const std::size_t plane = static_cast<std::size_t>(h) * w;
    const int blocks = (width + kBlock - 1) / kBlock;
    int tallest = 1;
    for (int y = row_begin, run = 0; y < row_end; ++y) {
        run = y > row_begin && rows.low[y] == rows.low[y - 1] ? run + 1 : 1;
        tallest = std::max(tallest, run);
    }
    std::vector<float> floor_value(w), column_min(w), column_max(w), top(kBlock), bottom(kBlock);
    std::vector<float> best(static_cast<std::size_t>(tallest) * kBlock), sum(best.size());
    std::vector<std::int32_t> label(best.size());
    std::vector<std::vector<int>> candidates(blocks);
    std::vector<int> block_first(blocks), block_last(blocks);
    for (int k = 0; k < blocks; ++k) {
        block_first[k] = columns.low[k * kBlock];
        block_last[k] = columns.low[std::min(width, (k + 1) * kBlock) - 1];
    }

    int y = row_begin;
    while (y < row_end) {
        const int y0 = rows.low[y], y1 = rows.high[y];
        int y_next = y + 1;
        while (y_next < row_end && rows.low[y_next] == y0) ++y_next;
        before(y0, y1);

        std::fill(floor_value.begin(), floor_value.end(), -std::numeric_limits<float>::infinity());
        for (int n = 0; n < classes; ++n) {
            const float* upper = logits + n * plane + static_cast<std::size_t>(y0) * w;
            const float* lower = logits + n * plane + static_cast<std::size_t>(y1) * w;
            for (int x = 0; x < w; ++x) column_min[x] = std::min(upper[x], lower[x]);
            for (int x = 0; x + 1 < w; ++x)
                floor_value[x] = std::max(floor_value[x], std::min(column_min[x], column_min[x + 1]));
            floor_value[w - 1] = std::max(floor_value[w - 1], column_min[w - 1]);
        }
        for (auto& list : candidates) list.clear();
        for (int n = 0; n < classes; ++n) {
            const float* upper = logits + n * plane + static_cast<std::size_t>(y0) * w;
            const float* lower = logits + n * plane + static_cast<std::size_t>(y1) * w;
            for (int x = 0; x < w; ++x) column_max[x] = std::max(upper[x], lower[x]);
            for (int k = 0; k < blocks; ++k) {
                bool wins = false;
                for (int x = block_first[k]; x <= block_last[k] && !wins; ++x) {
                    const float highest = x + 1 < w ? std::max(column_max[x], column_max[x + 1]) : column_max[x];
                    wins = highest >= floor_value[x] - reach;
                }
                if (wins) candidates[k].push_back(n);
            }
        }
        const int height = y_next - y;
        for (int k = 0; k < blocks; ++k) {
            const int begin = k * kBlock, end = std::min(width, begin + kBlock), count = end - begin;
            const std::vector<int>& list = candidates[k];
            std::fill(best.begin(), best.end(), -std::numeric_limits<float>::infinity());
            std::fill(label.begin(), label.end(), list.empty() ? 0 : list[0]);
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (int pass = 0; pass < (confidence ? 2 : 1); ++pass) {
                if (pass == 0 && list.size() == 1 && !confidence) break;
                for (int n : list) {
                    const float* plane_of = logits + n * plane;
                    interpolate_row(plane_of + static_cast<std::size_t>(y0) * w, columns.low.data(),
                                    columns.high.data(), columns.weight.data(), begin, end, top.data());
                    interpolate_row(plane_of + static_cast<std::size_t>(y1) * w, columns.low.data(),
                                    columns.high.data(), columns.weight.data(), begin, end, bottom.data());
                    for (int r = 0; r < height; ++r) {
                        const float b = rows.weight[y + r], a = 1.0f - b;
                        const std::size_t at = static_cast<std::size_t>(r) * kBlock;
                        if (pass == 0)
                            join(top.data(), bottom.data(), a, b, n, count, best.data() + at, label.data() + at);
                        else
                            add_share(top.data(), bottom.data(), a, b, count, best.data() + at, sum.data() + at);
                    }
                }
            }
            for (int r = 0; r < height; ++r) {
                const std::size_t at = static_cast<std::size_t>(r) * kBlock;
                const std::size_t to = static_cast<std::size_t>(y + r) * width + begin;
                for (int x = 0; x < count; ++x) labels[to + x] = static_cast<Label>(label[at + x]);
                if (confidence)
                    for (int x = 0; x < count; ++x) confidence[to + x] = 1.0f / sum[at + x];
            }
        }
        y = y_next;
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
        label_rows(logits, classes, h, w, rows, columns, labels, confidence, begin, end, [](int, int) {});
    };
    share_out(workers, run);
}

}  // namespace ov2vss
