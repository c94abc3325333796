// Any bytes as a safetensors file: what is taken lies within them and can be written and read again.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const ov2vss::Safetensors found = ov2vss::read_safetensors({reinterpret_cast<const char*>(data), size});
        unsigned sum = 0;
        for (const auto& item : found.arrays)
            for (std::size_t i = 0; i < item.second.bytes; ++i) sum += item.second.data[i];
        const std::string again = ov2vss::write_safetensors(found);
        if (ov2vss::read_safetensors(again).arrays.size() != found.arrays.size() || sum == ~0u) std::abort();
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
