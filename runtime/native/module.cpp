// Python bindings of the runtime's native kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "label_map.h"

namespace nb = nanobind;
using namespace nb::literals;

using Logits = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <typename Label>
using Labels = nb::ndarray<Label, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Label>
void label_map(const Logits& logits, Labels<Label>& labels, int threads) {
    const int classes = static_cast<int>(logits.shape(0));
    if (classes == 0 || logits.shape(1) == 0 || logits.shape(2) == 0) throw nb::value_error("logits are empty");
    if (classes - 1 > static_cast<int>(std::numeric_limits<Label>::max()))
        throw nb::value_error("more classes than the label type can hold");
    const float* source = logits.data();
    Label* target = labels.data();
    const int h = static_cast<int>(logits.shape(1)), w = static_cast<int>(logits.shape(2));
    const int height = static_cast<int>(labels.shape(0)), width = static_cast<int>(labels.shape(1));
    nb::gil_scoped_release release;
    ov2vss::label_map(source, classes, h, w, target, height, width, threads);
}

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of the OV2VSS runtime";
    const char* doc = "Write the argmax of the bilinearly upsampled logits [N, h, w] into labels [H, W].";
    m.def("label_map", &label_map<std::uint8_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a, doc);
    m.def("label_map", &label_map<std::uint16_t>, "logits"_a, "labels"_a.noconvert(), "threads"_a, doc);
}
