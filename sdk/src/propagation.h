// What a frame takes from the one before it: logits moved along the motion that the caller gives, and blended.
#pragma once

#include <cstdint>
#include <vector>

#include "bundle.h"
#include "ov2vss/ov2vss.h"
#include "tensor.h"

namespace ov2vss {

// From a frame to one before it, on the grid of the logits.
struct Motion {
    int h = 0, w = 0;
    std::vector<float> flow, trust;  // [h, w, 2] in cells, [h, w]; without any: not known

    bool known() const { return !trust.empty(); }
    bool lost() const;
    static Motion still(int h, int w);
    // The way on: from the frame that this motion starts from to the one that `earlier` ends at.
    Motion after(const Motion& earlier) const;
};

// The past of one stream: logits, and the motion since. The rules are those of the Python runtime's Propagator.
class Propagator {
public:
    Propagator(const Smoothing& rules, bool smooth, ov2vss_motion_function function, void* user, int h, int w)
        : rules_(rules), smooth_(smooth), function_(function), user_(user), h_(h), w_(w) {}

    // A new video, shot or size.
    void forget() {
        picture_.clear();
        drop();
    }
    // New words: the last picture stays, and one frame fills the logits again.
    void drop() {
        past_ = Tensor();
        motion_ = Motion();
    }
    // Sees the next frame as the network sees it, RGB [height, width, 3].
    void look(const std::uint8_t* frame, int height, int width);
    // Blends logits with the past's, makes them the past, and gives them; labels and confidence as label_map has them.
    template <typename Label>
    Tensor blend(const Tensor& logits, Label* labels, float* confidence, int height, int width, int threads);
    // The past's logits moved to the present frame.
    template <typename Label>
    Tensor carry(Label* labels, float* confidence, int height, int width, int threads);

    const Motion& motion() const { return motion_; }

    // For saved streams.
    std::vector<std::uint8_t> picture_;
    Tensor past_;
    Motion motion_;

private:
    Smoothing rules_;
    bool smooth_;
    ov2vss_motion_function function_;
    void* user_;
    int h_, w_;
};

// Whether the network should see a frame: `since` frames after the last one that it saw.
bool frame_due(int keyframes, std::int64_t since, const Motion& motion);

}  // namespace ov2vss
