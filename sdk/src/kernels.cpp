#include "kernels.h"

#include "native/label_map.h"
#include "native/propagate.h"

namespace ov2vss {

template <typename Label>
void make_labels(const float* logits, int classes, int h, int w, Label* labels, float* confidence, int height,
                 int width, int threads) {
    label_map(logits, classes, h, w, labels, confidence, height, width, threads);
}

template <typename Label>
void make_moved_labels(const Moved& moved, Label* labels, float* confidence, int height, int width, int threads) {
    Mover mover{moved.past,    moved.flow, moved.present,
                moved.trust,   moved.lean, static_cast<float>(1.0 / static_cast<double>(moved.sure)),
                moved.classes, moved.h,    moved.w,
                moved.out,     {}};
    propagate(mover, labels, confidence, height, width, threads);
}

template void make_labels(const float*, int, int, int, std::uint8_t*, float*, int, int, int);
template void make_labels(const float*, int, int, int, std::uint16_t*, float*, int, int, int);
template void make_moved_labels(const Moved&, std::uint8_t*, float*, int, int, int);
template void make_moved_labels(const Moved&, std::uint16_t*, float*, int, int, int);

}  // namespace ov2vss
