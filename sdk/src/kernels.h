// The kernels of native/, compiled once: they exist for several instruction sets each, which takes a compiler its time.
#pragma once

#include <cstdint>

namespace ov2vss {

// logits [classes, h, w] -> labels [height, width] and, unless null, confidence; Label is uint8 or uint16.
template <typename Label>
void make_labels(const float* logits, int classes, int h, int w, Label* labels, float* confidence, int height,
                 int width, int threads);

// What is moved and blended: see native/propagate.h.
struct Moved {
    const float *past, *flow, *present, *trust;
    float lean, sure;
    int classes, h, w;
    float* out;
};

template <typename Label>
void make_moved_labels(const Moved& moved, Label* labels, float* confidence, int height, int width, int threads);

}  // namespace ov2vss
