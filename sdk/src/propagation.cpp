#include "propagation.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "kernels.h"

namespace ov2vss {

namespace {

constexpr int kFarthest = 8;      // frames at most from one key frame to the next, with auto
constexpr double kFar = 0.0375;   // share of the width that a tenth of the picture may have moved
constexpr double kEnough = 0.25;  // mean trust

// A plane [h, w, channels] at (x, y), bilinear, held at the borders.
void sample(const std::vector<float>& plane, int h, int w, int channels, float x, float y, float* out) {
    x = std::min(std::max(x, 0.0f), static_cast<float>(w - 1));
    y = std::min(std::max(y, 0.0f), static_cast<float>(h - 1));
    const int x0 = static_cast<int>(x), y0 = static_cast<int>(y), x1 = std::min(x0 + 1, w - 1),
              y1 = std::min(y0 + 1, h - 1);
    const float dx = x - static_cast<float>(x0), dy = y - static_cast<float>(y0);
    for (int c = 0; c < channels; ++c) {
        const auto at = [&](int row, int column) {
            return plane[(static_cast<std::size_t>(row) * w + column) * channels + c];
        };
        out[c] = (1 - dy) * ((1 - dx) * at(y0, x0) + dx * at(y0, x1)) + dy * ((1 - dx) * at(y1, x0) + dx * at(y1, x1));
    }
}

}  // namespace

bool Motion::lost() const {
    return std::none_of(trust.begin(), trust.end(), [](float value) { return value > 0; });
}

Motion Motion::still(int h, int w) {
    const std::size_t cells = static_cast<std::size_t>(h) * static_cast<std::size_t>(w);
    return {h, w, std::vector<float>(2 * cells, 0.0f), std::vector<float>(cells, 1.0f)};
}

Motion Motion::after(const Motion& earlier) const {
    Motion found = *this;
    for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
            const std::size_t at = static_cast<std::size_t>(y) * w + x;
            const float to_x = static_cast<float>(x) + flow[2 * at], to_y = static_cast<float>(y) + flow[2 * at + 1];
            float way[2], sure = 0;
            sample(earlier.flow, h, w, 2, to_x, to_y, way);
            sample(earlier.trust, h, w, 1, to_x, to_y, &sure);
            found.flow[2 * at] += way[0];
            found.flow[2 * at + 1] += way[1];
            found.trust[at] *= sure;
        }
    return found;
}

void Propagator::look(const std::uint8_t* frame, int height, int width) {
    const std::size_t size = 3 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    if (picture_.size() == size && past_.known()) {
        Motion step = Motion::still(h_, w_);
        const bool found =
            function_(frame, picture_.data(), height, width, h_, w_, step.flow.data(), step.trust.data(), user_) == 0;
        for (float& value : step.flow)
            if (!std::isfinite(value))
                throw argument_error("the motion function gave numbers that are not finite", "mend it");
        for (float& value : step.trust) value = value > 0 ? std::min(value, 1.0f) : 0.0f;
        if (!found || step.lost())
            drop();
        else
            motion_ = step.after(motion_);
    } else {
        drop();
    }
    picture_.assign(frame, frame + size);
}

template <typename Label>
Tensor Propagator::blend(const Tensor& logits, Label* labels, float* confidence, int height, int width, int threads) {
    const int rows = static_cast<int>(logits.shape[0]);
    Tensor found = logits;
    if (smooth_ && past_.known() && motion_.known() && past_.shape == logits.shape) {
        found = Tensor::empty(OV2VSS_FLOAT32, logits.shape);
        std::vector<float> share = motion_.trust;
        for (float& value : share) value *= static_cast<float>(rules_.share);
        const Moved moved{past_.floats(),
                          motion_.flow.data(),
                          logits.floats(),
                          share.data(),
                          static_cast<float>(rules_.lean),
                          static_cast<float>(rules_.sure),
                          rows,
                          h_,
                          w_,
                          found.floats()};
        make_moved_labels(moved, labels, confidence, height, width, threads);
    } else {
        make_labels(logits.floats(), rows, h_, w_, labels, confidence, height, width, threads);
    }
    past_ = found;
    motion_ = Motion::still(h_, w_);
    return found;
}

template <typename Label>
Tensor Propagator::carry(Label* labels, float* confidence, int height, int width, int threads) {
    const int rows = static_cast<int>(past_.shape[0]);
    Tensor found = Tensor::empty(OV2VSS_FLOAT32, past_.shape);
    const Moved moved{past_.floats(),
                      motion_.flow.data(),
                      nullptr,
                      nullptr,
                      static_cast<float>(rules_.lean),
                      static_cast<float>(rules_.sure),
                      rows,
                      h_,
                      w_,
                      found.floats()};
    make_moved_labels(moved, labels, confidence, height, width, threads);
    return found;
}

template Tensor Propagator::blend(const Tensor&, std::uint8_t*, float*, int, int, int);
template Tensor Propagator::blend(const Tensor&, std::uint16_t*, float*, int, int, int);
template Tensor Propagator::carry(std::uint8_t*, float*, int, int, int);
template Tensor Propagator::carry(std::uint16_t*, float*, int, int, int);

bool frame_due(int keyframes, std::int64_t since, const Motion& motion) {
    if (!motion.known()) return true;
    if (keyframes != OV2VSS_KEYFRAMES_AUTO) return since >= keyframes;
    std::vector<double> way;
    double trust = 0;
    for (std::size_t i = 0; i < motion.trust.size(); ++i) {
        way.push_back(std::hypot(motion.flow[2 * i], motion.flow[2 * i + 1]));
        trust += static_cast<double>(motion.trust[i]);
    }
    // The 90th percentile, between two neighbours.
    const double place = 0.9 * static_cast<double>(way.size() - 1);
    const auto low = static_cast<std::ptrdiff_t>(place);
    std::nth_element(way.begin(), way.begin() + low, way.end());
    const double lower = way[static_cast<std::size_t>(low)];
    const double upper =
        low + 1 < static_cast<std::ptrdiff_t>(way.size()) ? *std::min_element(way.begin() + low + 1, way.end()) : lower;
    const double far = lower + (place - static_cast<double>(low)) * (upper - lower);
    return far > kFar * motion.w || since >= kFarthest || trust / static_cast<double>(motion.trust.size()) < kEnough;
}

}  // namespace ov2vss
