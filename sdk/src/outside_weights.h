// Whether an ONNX graph keeps weights in other files.
#pragma once

#include <string_view>

namespace ov2vss {

// Read from the bytes of the file, field by field, so that no order of fields hides it: an engine that is given a graph
// in memory would look for such a file in the current folder. Bytes that are no such messages throw
// std::invalid_argument.
bool has_outside_weights(std::string_view graph);

}  // namespace ov2vss
