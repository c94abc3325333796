// Python bindings of the runtime's native kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "label_map.h"
#include "propagate.h"

namespace nb = nanobind;
using namespace nb::literals;

using Logits = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <typename Label>
using Labels = nb::ndarray<Label, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

using Confidence = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Label>
void label_map(const Logits& logits, Labels<Label>& labels, int threads, std::optional<Confidence> confidence) {
    const int classes = static_cast<int>(logits.shape(0));
    if (classes == 0 || logits.shape(1) == 0 || logits.shape(2) == 0) throw nb::value_error("logits are empty");
    if (classes - 1 > static_cast<int>(std::numeric_limits<Label>::max()))
        throw nb::value_error("more classes than the label type can hold");
    const float* source = logits.data();
    Label* target = labels.data();
    const int h = static_cast<int>(logits.shape(1)), w = static_cast<int>(logits.shape(2));
    const int height = static_cast<int>(labels.shape(0)), width = static_cast<int>(labels.shape(1));
    float* sure = confidence ? confidence->data() : nullptr;
    if (confidence && (confidence->shape(0) != labels.shape(0) || confidence->shape(1) != labels.shape(1)))
        throw nb::value_error("confidence and labels differ in size");
    nb::gil_scoped_release release;
    ov2vss::label_map(source, classes, h, w, target, sure, height, width, threads);
}

using Plane = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits3 = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <typename Label>
void propagate(const Logits& past, const Logits& flow, std::optional<Logits> present, std::optional<Plane> trust,
               float lean, float sure, Logits3& out, Labels<Label>& labels, int threads,
               std::optional<Confidence> confidence) {
    const std::size_t classes = past.shape(0), h = past.shape(1), w = past.shape(2);
    if (classes == 0 || h == 0 || w == 0) throw nb::value_error("logits are empty");
    if (classes - 1 > static_cast<std::size_t>(std::numeric_limits<Label>::max()))
        throw nb::value_error("more classes than the label type can hold");
    if (flow.shape(0) != h || flow.shape(1) != w || flow.shape(2) != 2) throw nb::value_error("flow must be [h, w, 2]");
    if (present.has_value() != trust.has_value()) throw nb::value_error("present and trust need each other");
    if (present && (present->shape(0) != classes || present->shape(1) != h || present->shape(2) != w))
        throw nb::value_error("present and past differ in size");
    if (trust && (trust->shape(0) != h || trust->shape(1) != w)) throw nb::value_error("trust must be [h, w]");
    if (!(sure > 0)) throw nb::value_error("sure must be above 0");
    if (out.shape(0) != classes || out.shape(1) != h || out.shape(2) != w)
        throw nb::value_error("out and past differ in size");
    if (out.data() == past.data()) throw nb::value_error("out must not be past: its rows are still read");
    if (confidence && (confidence->shape(0) != labels.shape(0) || confidence->shape(1) != labels.shape(1)))
        throw nb::value_error("confidence and labels differ in size");
    ov2vss::Mover mover{past.data(),
                        flow.data(),
                        present ? present->data() : nullptr,
                        trust ? trust->data() : nullptr,
                        lean,
                        static_cast<float>(1.0 / static_cast<double>(sure)),
                        static_cast<int>(classes),
                        static_cast<int>(h),
                        static_cast<int>(w),
                        out.data(),
                        {}};
    Label* target = labels.data();
    float* share = confidence ? confidence->data() : nullptr;
    const int height = static_cast<int>(labels.shape(0)), width = static_cast<int>(labels.shape(1));
    nb::gil_scoped_release release;
    ov2vss::propagate(mover, target, share, height, width, threads);
}

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of the OV2VSS runtime";
    const char* doc =
        "Write the argmax of the bilinearly upsampled logits [N, h, w] into labels [H, W], and its softmax into "
        "confidence [H, W] if given.";
    m.def("label_map", &label_map<std::uint8_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a,
          "confidence"_a.noconvert() = nb::none(), doc);
    m.def("label_map", &label_map<std::uint16_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a,
          "confidence"_a.noconvert() = nb::none(), doc);
    const char* moved =
        "Sample past [N, h, w] at every cell plus flow [h, w, 2] (x, y; in cells); given present [N, h, w], blend it "
        "in "
        "by trust [h, w], less where present is surer than past (lean, sure). Write the result into out [N, h, w] and "
        "its label map into labels [H, W].";
    m.def("propagate", &propagate<std::uint8_t>, "past"_a, "flow"_a, "present"_a.none(), "trust"_a.none(), "lean"_a,
          "sure"_a, "out"_a.noconvert(), "labels"_a.noconvert(), "threads"_a, "confidence"_a.noconvert() = nb::none(),
          moved);
    m.def("propagate", &propagate<std::uint16_t>, "past"_a, "flow"_a, "present"_a.none(), "trust"_a.none(), "lean"_a,
          "sure"_a, "out"_a.noconvert(), "labels"_a.noconvert(), "threads"_a, "confidence"_a.noconvert() = nb::none(),
          moved);
}
