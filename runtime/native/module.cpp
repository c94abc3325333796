// Python bindings of the runtime's native kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "label_map.h"

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

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of the OV2VSS runtime";
    const char* doc =
        "Write the argmax of the bilinearly upsampled logits [N, h, w] into labels [H, W], and its softmax into "
        "confidence [H, W] if given.";
    m.def("label_map", &label_map<std::uint8_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a,
          "confidence"_a.noconvert() = nb::none(), doc);
    m.def("label_map", &label_map<std::uint16_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a,
          "confidence"_a.noconvert() = nb::none(), doc);
}
