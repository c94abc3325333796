// The safetensors format: a header of JSON, then arrays.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ov2vss {

// One array within the bytes that were read.
struct Stored {
    std::string type;  // "F32", "I64", "U8", ...
    std::vector<std::int64_t> shape;
    const std::uint8_t* data = nullptr;
    std::size_t bytes = 0;
};

struct Safetensors {
    std::map<std::string, Stored> arrays;
    std::map<std::string, std::string> metadata;
};

// Reads a file's bytes, which must outlive what is returned. Every array lies within them and has the size that its
// type and shape ask for; otherwise std::invalid_argument.
Safetensors read_safetensors(std::string_view bytes);

// Inverse of read_safetensors, as the `safetensors` library writes it.
std::string write_safetensors(const Safetensors& content);

}  // namespace ov2vss
