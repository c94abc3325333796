// Frames as callers have them, and as the network sees them.
#pragma once

#include <cstdint>
#include <vector>

#include "ov2vss/ov2vss.h"

namespace ov2vss {

// RGB [height, width, 3] whose rows may have space between them.
struct Picture {
    const std::uint8_t* data = nullptr;
    int height = 0, width = 0;
    std::ptrdiff_t stride = 0;
};

// Checks an image of the interface, and gives it as RGB: itself where it is, else converted into `held`.
Picture rgb_of(const ov2vss_image& image, std::vector<std::uint8_t>& held);

// Stretches a picture to [height, width, 3] without spaces: bilinear, or area averaging where a side shrinks by more
// than two. The bytes are those of OpenCV's INTER_LINEAR and INTER_AREA.
void resize(const Picture& from, std::uint8_t* to, int height, int width);

}  // namespace ov2vss
