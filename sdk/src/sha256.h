// SHA-256 of bytes.
#pragma once

#include <cstddef>
#include <string>

namespace ov2vss {

// 64 lower-case hexadecimal digits.
std::string sha256(const void* data, std::size_t size);

}  // namespace ov2vss
