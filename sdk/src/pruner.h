// Candidate classes of a shot: of a large vocabulary only the words that come near to winning somewhere are decoded.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor.h"

namespace ov2vss {

// The rules of the Python runtime's ClassPruner.
class Pruner {
public:
    // `keep` at most (0: all); `absent`: leave rows out whose share of the softmax stays below it everywhere.
    Pruner(int keep, double absent, double temperature) : keep_(keep), absent_(absent), temperature_(temperature) {}

    void restart() {
        nearest_.clear();
        active_.clear();
        age_ = 0;
    }
    bool due() const { return active_.empty() || age_ >= kRefresh; }
    // Chooses anew from unit features [D, positions] and embeddings [rows, D].
    void look(const float* dense, std::size_t positions, const std::vector<float>& embeddings, std::size_t rows);
    // Rows to decode in this frame, rising.
    const std::vector<std::int64_t>& active() {
        ++age_;
        return active_;
    }

    const std::vector<float>& nearest() const { return nearest_; }
    const std::vector<std::int64_t>& chosen() const { return active_; }
    std::int64_t age() const { return age_; }
    void load(std::vector<float> nearest, std::vector<std::int64_t> active, std::int64_t age) {
        nearest_ = std::move(nearest);
        active_ = std::move(active);
        age_ = age;
    }

private:
    static constexpr std::int64_t kRefresh = 10;  // frames between two looks
    static constexpr float kForget = 0.02f;       // by which an earlier look counts for less at every new one
    int keep_;
    double absent_, temperature_;
    std::vector<float> nearest_;
    std::vector<std::int64_t> active_;
    std::int64_t age_ = 0;
};

}  // namespace ov2vss
