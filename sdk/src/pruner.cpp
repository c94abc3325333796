#include "pruner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ov2vss {

void Pruner::look(const float* dense, std::size_t positions, const std::vector<float>& embeddings, std::size_t rows) {
    const std::size_t width = embeddings.size() / rows;
    std::vector<float> cosines(rows * positions, 0.0f);
    for (std::size_t row = 0; row < rows; ++row) {
        float* out = cosines.data() + row * positions;
        for (std::size_t d = 0; d < width; ++d) {
            const float weight = embeddings[row * width + d];
            const float* plane = dense + d * positions;
            for (std::size_t p = 0; p < positions; ++p) out[p] += weight * plane[p];
        }
    }
    std::vector<float> best(positions, -std::numeric_limits<float>::infinity());
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t p = 0; p < positions; ++p) best[p] = std::max(best[p], cosines[row * positions + p]);
    std::vector<float> nearest(rows, -std::numeric_limits<float>::infinity());
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t p = 0; p < positions; ++p)
            nearest[row] = std::max(nearest[row], cosines[row * positions + p] - best[p]);
    if (nearest_.size() == rows)
        for (std::size_t row = 0; row < rows; ++row) nearest[row] = std::max(nearest[row], nearest_[row] - kForget);
    nearest_ = nearest;
    const std::size_t keep = std::min(keep_ ? static_cast<std::size_t>(keep_) : rows, rows);
    std::vector<std::int64_t> order(rows);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
        return nearest_[static_cast<std::size_t>(a)] > nearest_[static_cast<std::size_t>(b)];
    });
    order.resize(keep);
    std::sort(order.begin(), order.end());
    if (absent_ > 0) {
        std::vector<float> sum(positions, 0.0f), share(rows, 0.0f);
        const auto temperature = static_cast<float>(temperature_);
        for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t p = 0; p < positions; ++p) {
                float& value = cosines[row * positions + p];
                value = std::exp(temperature * (value - best[p]));
                sum[p] += value;
            }
        for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t p = 0; p < positions; ++p)
                share[row] = std::max(share[row], cosines[row * positions + p] / sum[p]);
        std::vector<std::int64_t> present;
        std::int64_t most = order[0];
        for (const std::int64_t row : order) {
            if (share[static_cast<std::size_t>(row)] >= static_cast<float>(absent_)) present.push_back(row);
            if (share[static_cast<std::size_t>(row)] > share[static_cast<std::size_t>(most)]) most = row;
        }
        order = present.empty() ? std::vector<std::int64_t>{most} : present;
    }
    active_ = order;
    age_ = 0;
}

}  // namespace ov2vss
